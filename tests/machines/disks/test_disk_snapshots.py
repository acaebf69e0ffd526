"""Snapshots, clones and histories of machines with disks, whose programs would notice any other content."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anyvirt
from anyvirt.devices.disk import RawDisk
from anyvirt.errors import UsageError
from anyvirt.images.qcow2 import create_qcow2
from anyvirt.machines import snapshot as snapshots
from anyvirt.machines.disks.board import ExpectedDisk
from anyvirt.machines.disks.image import open_image
from anyvirt.machines.ending import Reason
from anyvirt.machines.recording import state_digest
from anyvirt.machines.snapshot import SnapshotError

LONG = 60
ROUND = 16


def digest(path):
    return hashlib.sha256(path.read_bytes()).digest()


def qemu_img(*words):
    if shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img (package qemu-utils)")
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout


def content_by_qemu(path, tmp_path):
    qemu_img("check", path)
    qemu_img("convert", "-O", "raw", path, tmp_path / "converted")
    return (tmp_path / "converted").read_bytes()


# Snapshots --------------------------------------------------------------------------------------------------


def test_a_snapshot_brings_back_what_is_on_the_disk(counting, image, tmp_path):
    m = counting.machine(image)
    counting.rounds(m, 40)
    m.snapshot(tmp_path / "s")
    then, frozen = counting.read(m), digest(image)
    assert counting.counts(m) == list(range(25, 41))
    counting.rounds(m, 30)
    for _ in range(2):
        again = counting.restore(tmp_path / "s")
        assert counting.read(again) == then
        counting.rounds(again, 30)
        assert counting.read(again) == counting.read(m)
        assert state_digest(again) == state_digest(m)
        counting.rounds(again, 7)
    assert counting.counts(m) == list(range(55, 71))
    assert digest(image) == frozen


def test_the_machine_goes_on_in_an_overlay_beside_its_image(counting, image, tmp_path):
    m = counting.machine(image)
    for number in range(3):
        counting.rounds(m, 20)
        m.snapshot(tmp_path / f"s{number}")
    counting.rounds(m, 5)
    last = counting.read(m)
    counting.disk(m).close()
    assert content_by_qemu(tmp_path / "data.3.qcow2", tmp_path) == last
    following = counting.machine(tmp_path / "data.3.qcow2", format="qcow2")
    assert counting.read(following) == last
    following.snapshot(tmp_path / "later")
    for number in range(3):
        again = counting.restore(tmp_path / f"s{number}")
        assert counting.counts(again)[-1] == 20 * (number + 1)


def test_without_writes_in_between_there_is_no_further_overlay(counting, image, tmp_path):
    m = counting.machine(image)
    for number in range(3):
        m.snapshot(tmp_path / f"s{number}")
    assert sorted(path.name for path in tmp_path.glob("data*")) == ["data.1.qcow2", "data.img"]
    assert counting.read(counting.restore(tmp_path / "s2")) == image.read_bytes()


def test_snapshots_of_restored_machines_need_no_others(counting, image, tmp_path):
    counting.machine(image).snapshot(tmp_path / "s0")
    for number in range(3):
        m = counting.restore(tmp_path / f"s{number}")
        shutil.rmtree(tmp_path / f"s{number}")
        counting.rounds(m, 9)
        m.snapshot(tmp_path / f"s{number + 1}")
        then = counting.read(m)
        counting.rounds(m, 20)
    assert content_by_qemu(tmp_path / "s3/disk.0.qcow2", tmp_path) == then
    again = counting.restore(tmp_path / "s3")
    assert counting.read(again) == then and counting.counts(again)[-1] == 27


def test_zeros_and_discarded_blocks_are_in_it(counting, image, tmp_path):
    counting.machine(image).snapshot(tmp_path / "s0")
    m = counting.restore(tmp_path / "s0")
    disk = counting.disk(m)
    disk.write_zeroes(100_352, 300_032, may_unmap=True)
    disk.discard(700_416, 200_192)
    then = counting.read(m)
    expected = bytearray(image.read_bytes())
    expected[100_352:400_384] = bytes(300_032)
    expected[720_896:851_968] = bytes(131_072)
    assert then == expected
    m.snapshot(tmp_path / "s1")
    assert counting.read(counting.restore(tmp_path / "s1")) == then
    assert content_by_qemu(tmp_path / "s1/disk.0.qcow2", tmp_path) == then


def test_a_disk_that_ends_within_a_block(counting, tmp_path):
    path = tmp_path / "odd.img"
    path.write_bytes(random.Random(1).randbytes((1 << 20) + 1536))
    counting.machine(path).snapshot(tmp_path / "s0")
    m = counting.restore(tmp_path / "s0")
    counting.write(m, b"the end!" * 64, (1 << 20) + 1024)
    m.snapshot(tmp_path / "s1")
    again = counting.restore(tmp_path / "s1")
    assert counting.read(again) == path.read_bytes()[: (1 << 20) + 1024] + b"the end!" * 64


def test_a_qcow2_image_with_a_backing_file(counting, image, tmp_path):
    create_qcow2(tmp_path / "top.qcow2", 1 << 20, backing_file="data.img", backing_format="raw")
    m = counting.machine(tmp_path / "top.qcow2", format="qcow2")
    counting.rounds(m, 8)
    m.snapshot(tmp_path / "s")
    counting.rounds(m, 8)
    again = counting.restore(tmp_path / "s")
    counting.rounds(again, 8)
    assert counting.read(again) == counting.read(m)
    os.utime(image)
    with pytest.raises(SnapshotError, match=r"the disk .*data\.img has changed since"):
        counting.restore(tmp_path / "s")


def test_disks_that_are_opened_without_locks(counting, image, tmp_path):
    m = anyvirt.Machine(
        firmware=counting.firmware,
        memory="4M",
        tier="interpreter",
        attach=lambda board: counting.attach(board, RawDisk(image)),
    )
    counting.write(m, b"written!" * 64, 4096)
    m.snapshot(tmp_path / "s")
    counting.write(m, b"later on" * 64, 4096)
    again = counting.restore(tmp_path / "s")
    assert counting.read(again, 4096, 8) == b"written!" and counting.read(m, 4096, 8) == b"later on"
    assert (tmp_path / "data.1.qcow2").exists()


def test_a_read_only_disk_is_shared_and_must_not_have_changed(counting, image, tmp_path):
    def make(disk):
        return lambda board: counting.attach(board, disk)

    first = open_image(image, format="raw", read_only=True)
    m = anyvirt.Machine(firmware=counting.firmware, memory="4M", tier="interpreter", attach=make(first))
    m.snapshot(tmp_path / "s")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.img", "s"]
    expected = make(ExpectedDisk(read_only=True))
    for again in (
        anyvirt.Machine.restore(tmp_path / "s", tier="interpreter", attach=expected),
        m.clone(attach=expected),
    ):
        assert counting.read(again) == image.read_bytes() and counting.disk(again).read_only
    with pytest.raises(SnapshotError, match="disk that can be written in one machine only"):
        counting.restore(tmp_path / "s")
    with image.open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(SnapshotError) as error:
        anyvirt.Machine.restore(tmp_path / "s", tier="interpreter", attach=expected)
    assert str(error.value) == (
        f"the snapshot {tmp_path}/s cannot be restored: "
        f"the disk {image} has changed since the snapshot was taken"
    )


def test_an_image_that_is_gone_or_in_use_is_named(counting, image, tmp_path):
    m = counting.machine(image)
    m.snapshot(tmp_path / "s")
    counting.disk(m).close()
    writer = open_image(image, format="raw", read_only=False)
    with pytest.raises(SnapshotError, match=r"data\.img is in use by another process"):
        counting.restore(tmp_path / "s")
    writer.close()
    image.rename(tmp_path / "elsewhere")
    with pytest.raises(SnapshotError, match=r"the disk .*data\.img cannot be found any more"):
        counting.restore(tmp_path / "s")


def test_a_snapshot_that_fails_changes_nothing(counting, image, tmp_path, monkeypatch):
    m = counting.machine(image)
    counting.rounds(m, 5)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "_sums", full)
        with pytest.raises(UsageError, match="No space left"):
            m.snapshot(tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["data.img"]
    counting.rounds(m, 5)
    assert counting.counts(m)[-1] == 10
    counting.disk(m).flush()
    assert image.read_bytes() == counting.read(m)


def test_an_image_that_others_change_meanwhile_is_found(counting, image, tmp_path):
    counting.machine(image).snapshot(tmp_path / "s")
    again = counting.restore(tmp_path / "s")
    os.utime(image)
    with pytest.raises(UsageError, match="has changed since"):
        again.snapshot(tmp_path / "t")


@pytest.fixture(scope="module")
def whole(counting, tmp_path_factory):
    """A snapshot with an overlay, and its files."""
    directory = tmp_path_factory.mktemp("whole")
    (directory / "data.img").write_bytes(bytes(1 << 20))
    counting.machine(directory / "data.img").snapshot(directory / "s0")
    m = counting.restore(directory / "s0")
    counting.rounds(m, 20)
    counting.disk(m).discard(0, 1 << 17)
    m.snapshot(directory / "s")
    return {path.name: path.read_bytes() for path in (directory / "s").iterdir()}


def refuse(counting, content):
    """Restore a snapshot of these files: it must be refused, in one sentence."""
    directory = snapshots.Path(os.environ["ANYVIRT_STATE"]) / "altered-disk"
    directory.mkdir()
    try:
        for name, data in content.items():
            (directory / name).write_bytes(data)
        with pytest.raises(SnapshotError) as error:
            counting.restore(directory)
        assert "\n" not in str(error.value) and "the snapshot" in str(error.value)
    finally:
        shutil.rmtree(directory)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_byte_of_an_overlay_that_was_changed_is_found(counting, whole, data):
    name = data.draw(st.sampled_from(["disk.0.qcow2", "manifest.json"]))
    position = data.draw(st.integers(0, len(whole[name]) - 1))
    changed = bytearray(whole[name])
    changed[position] ^= data.draw(st.integers(1, 255))
    refuse(counting, whole | {name: bytes(changed)})


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_cut_of_an_overlay_is_found(counting, whole, data):
    name = "disk.0.qcow2"
    length = data.draw(st.integers(0, len(whole[name]) - 1))
    refuse(counting, whole | {name: whole[name][:length]})
    refuse(counting, {other: content for other, content in whole.items() if other != name})
    refuse(counting, whole | {name: whole[name] + b"\0"})


def with_sums(files):
    """The files with sums that are right."""
    names = [name for name in files if name != "SHA256SUMS"]
    ordered = [*json.loads(files["manifest.json"])["sizes"], "manifest.json"]
    sums = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in ordered if name in names
    )
    return files | {"SHA256SUMS": sums.encode()}


@pytest.mark.parametrize(
    "change",
    [
        lambda disk: disk.update(size=1 << 19),
        lambda disk: disk.update(size=-512),
        lambda disk: disk.update(size=1000),
        lambda disk: disk.update(block_size=3),
        lambda disk: disk.update(overlay=None),
        lambda disk: disk.update(overlay="../disk.0.qcow2"),
        lambda disk: disk.update(format="vdi"),
        lambda disk: disk.update(read_only=1),
        lambda disk: disk.update(image="/dev/null"),
        lambda disk: disk.update(files=[["/dev/null"]]),
        lambda disk: disk.update(device="pci device 0"),
        lambda disk: disk.pop("files"),
        lambda disk: disk.update(more=1),
        lambda disk: disk.clear(),
    ],
)  # fmt: skip
def test_a_record_that_makes_no_sense_is_refused(counting, whole, change):
    manifest = json.loads(whole["manifest.json"])
    change(manifest["disks"][0])
    refuse(counting, with_sums(whole | {"manifest.json": json.dumps(manifest).encode()}))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_overlay_with_wrong_tables_is_refused_or_harmless(counting, whole, data):
    """With sums that are right, as nobody makes them by accident."""
    changed = bytearray(whole["disk.0.qcow2"])
    tables = 5 << 16  # header, reference counts, two levels of tables
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, 200) | st.sampled_from(range(0, tables, 8)))
        changed[position] = data.draw(st.integers(0, 255))
    directory = snapshots.Path(os.environ["ANYVIRT_STATE"]) / "wrong-tables"
    directory.mkdir()
    try:
        for name, content in with_sums(whole | {"disk.0.qcow2": bytes(changed)}).items():
            (directory / name).write_bytes(content)
        try:
            assert len(counting.read(counting.restore(directory))) == 1 << 20
        except SnapshotError as error:
            assert "\n" not in str(error)
    finally:
        shutil.rmtree(directory)


# Clones -----------------------------------------------------------------------------------------------------


def test_nobody_sees_what_others_write(counting, image):
    m = counting.machine(image)
    counting.rounds(m, 10)
    clones = [counting.clone(m) for _ in range(2)]
    clones.append(counting.clone(clones[0]))
    for number, machine in enumerate([m, *clones]):
        counting.write(machine, bytes([number]) * 512, 65_536 * 15 + 1024)
        counting.write(machine, bytes([number]) * 512, 65_536 * 3 + 1024 * (number + 1))
        counting.rounds(machine, 10 * (number + 1))
    for number, machine in enumerate([m, *clones]):
        assert counting.counts(machine)[-1] == 10 * (number + 2)
        assert counting.read(machine, 65_536 * 15 + 1024, 512) == bytes([number]) * 512
        expected = [number if place == number else 3 for place in range(4)]
        assert [
            counting.read(machine, 65_536 * 3 + 1024 * (place + 1), 1)[0] for place in range(4)
        ] == expected
    counting.disk(m).flush()
    assert counting.read(m) == image.read_bytes()


def test_clones_go_on_when_the_original_is_gone(counting, image, tmp_path):
    m = counting.machine(image)
    counting.rounds(m, 20)
    clone = counting.clone(m)
    counting.rounds(m, 20)
    counting.disk(m).close()
    del m
    counting.rounds(clone, 3)
    assert counting.counts(clone)[-1] == 23
    clone.snapshot(tmp_path / "s")
    counting.rounds(clone, 5)
    assert counting.counts(counting.restore(tmp_path / "s"))[-1] == 23


def test_a_snapshot_of_a_clone_lets_the_original_leave_its_image(counting, image, tmp_path):
    m = counting.machine(image)
    counting.rounds(m, 5)
    clone = counting.clone(m)
    counting.rounds(m, 30)
    counting.rounds(clone, 2)
    clone.snapshot(tmp_path / "s")
    frozen = digest(image)
    counting.rounds(m, 30)
    assert digest(image) == frozen and (tmp_path / "data.1.qcow2").exists()
    assert counting.counts(counting.restore(tmp_path / "s"))[-1] == 7
    assert counting.counts(m)[-1] == 65
    assert counting.counts(clone)[-1] == 7


def test_machines_that_run_are_copied_with_what_is_on_their_disks(counting, image, tmp_path):
    m = counting.machine(image)
    runner = threading.Thread(target=lambda: m.run(seconds=LONG))
    runner.start()
    clones = [counting.clone(m) for _ in range(5)]
    m.snapshot(tmp_path / "s")
    clones.append(counting.restore(tmp_path / "s"))
    m.stop()
    runner.join()
    for clone in clones:
        before = counting.counts(clone)[-1]
        counting.rounds(clone, 20)
        counts = counting.counts(clone)
        assert counts == list(range(counts[0], counts[0] + 16)) and before + 19 <= counts[-1] <= before + 21
    counts = counting.counts(m)
    assert counts == list(range(counts[0], counts[0] + 16))


# Going back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "overlay", "clone", "restored"])
def test_going_back_brings_the_disk_back(counting, image, tmp_path, kind):
    m = counting.machine(image)
    if kind == "overlay":
        m.snapshot(tmp_path / "first")
    elif kind == "clone":
        m = counting.clone(m)
    elif kind == "restored":
        m.snapshot(tmp_path / "first")
        m = counting.restore(tmp_path / "first")
    m.keep_history(every=100, most=8)
    states = {}
    for _ in range(60):
        states[m.position.instructions] = state_digest(m), counting.read(m)
        counting.rounds(m, 1)
    end = state_digest(m), counting.read(m)
    for back in (7, 25, 1, 20):
        m.reverse_step(back * ROUND)
        assert (state_digest(m), counting.read(m)) == states[m.position.instructions]
    m.run(instructions=(7 + 25 + 1 + 20) * ROUND)
    assert (state_digest(m), counting.read(m)) == end
    # The store of a number that is not there any more.
    m.harts[0].watchpoints.add(0x8001_3100, 8)
    assert m.reverse_continue().reason is Reason.HOOK
    assert counting.counts(m)[-1] in (59, 60)
    if kind == "image":
        counting.disk(m).flush()
        assert image.read_bytes() == counting.read(m)


def test_snapshots_and_clones_in_a_past(counting, image, tmp_path):
    m = counting.machine(image)
    m.keep_history(every=100)
    counting.rounds(m, 30)
    m.snapshot(tmp_path / "late")
    counting.rounds(m, 30)
    m.reverse_step(50 * ROUND)
    clone = counting.clone(m)
    m.snapshot(tmp_path / "early")
    counting.rounds(m, 3)
    assert counting.counts(clone)[-1] == 10 == counting.counts(counting.restore(tmp_path / "early"))[-1]
    assert counting.counts(counting.restore(tmp_path / "late"))[-1] == 30
    m.reverse_step(12 * ROUND)
    assert counting.counts(m)[-1] == 1


def test_a_recording_brings_its_disk_along(counting, image, tmp_path):
    m = counting.machine(image)
    counting.rounds(m, 5)
    with m.record(tmp_path / "r"):
        counting.rounds(m, 20)
    counting.rounds(m, 20)
    again = anyvirt.Machine.replay(tmp_path / "r", tier="interpreter", attach=counting.expect)
    again.replay_to_end()
    assert counting.counts(again)[-1] == 25
