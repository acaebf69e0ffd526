"""Snapshots, clones and changes of the tier: a machine goes on as if nothing had happened, or is refused."""

import gc
import json
import os
import shutil
import stat
import subprocess
import threading
import weakref
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anyvirt
from anyvirt.boards.virt_map import RAM_START
from anyvirt.devices.virtio.blk import VirtioBlk
from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.errors import UsageError
from anyvirt.isa.riscv64_system import riscv64_system
from anyvirt.machines import snapshot as snapshots
from anyvirt.machines.ending import Reason
from anyvirt.machines.snapshot import SnapshotError

TIERS = ["interpreter", "auto"]
LONG = 60

COUNTER = """
    lui s0, 0x80010
loop:
    ld t0, 0(s0)
    addi t0, t0, 1
    sd t0, 0(s0)
    jal zero, loop
"""
"""Counts in memory for ever."""
COUNT = 0x8001_0000
CONTROL = ("mstatus", "mip", "mie", "sepc", "scause", "stimecmp", "time")


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    path = tmp_path_factory.mktemp("counter") / "counter.bin"
    path.write_bytes(riscv64_system.assemble(COUNTER.replace("0x80010", "0x10").replace(
        "lui s0, 0x10", "auipc s0, 0x10"), RAM_START))  # fmt: skip
    return path


def seen(m):
    """All that a guest could notice."""
    return (
        m.clock.now(),
        m.console.text,
        [
            (hart.pc, hart.privilege, hart.cpu.instructions, list(hart.x), list(hart.f), hart.cpu.fcsr)
            for hart in m.harts
        ],
        [[hart.csr[name] for name in CONTROL] for hart in m.harts],
        {page: m.board.memory.read(page, 4096) for page in m.board.memory.dirty_pages()},
        m.board.save_state(),
    )  # fmt: skip


def same(first, second):
    """Whether two machines are in the same state; pages that are zero may have been written or not."""
    a, b = seen(first), seen(second)
    pages = a[4].keys() | b[4].keys()
    zero = bytes(4096)
    return a[:4] == b[:4] and a[5] == b[5] and all(
        a[4].get(page, zero) == b[4].get(page, zero) for page in pages
    )  # fmt: skip


def count(m):
    return int.from_bytes(m.memory[COUNT : COUNT + 8], "little")


# Going on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [1, 2])
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("compress", [False, True])
def test_a_snapshot_goes_on_in_the_other_tier(program, tmp_path, tier, cpus, compress):
    other = TIERS[1 - TIERS.index(tier)]
    with anyvirt.Machine(kernel=program("ticks"), cpus=cpus, memory="64M", tier=tier, seed=1) as m:
        m.run(instructions=31_000)
        m.snapshot(tmp_path / "s", compress=compress)
        again = anyvirt.Machine.restore(tmp_path / "s", tier=other)
        assert same(m, again)
        for _ in range(4):
            assert m.run(instructions=20_000) == again.run(instructions=20_000)
            assert same(m, again)
        assert m.run(instructions=10_000_000).reason is Reason.POWEROFF
        assert again.run(instructions=10_000_000).reason is Reason.POWEROFF
        assert same(m, again)
        again.snapshot(tmp_path / "end")
        assert anyvirt.Machine.restore(tmp_path / "end").run(seconds=LONG).reason is Reason.POWEROFF


def test_what_was_typed_arrives_in_the_machine_that_goes_on(program, tmp_path):
    text = "".join(f"line {number} of what is typed;" for number in range(20))
    with anyvirt.Machine(kernel=program("echo"), memory="64M", tier="interpreter", seed=1) as m:
        m.console.expect("ready\n", instructions=1_000_000)
        m.console.send(text)
        m.run(instructions=200)
        m.snapshot(tmp_path / "s")
        for again in (m, anyvirt.Machine.restore(tmp_path / "s", tier="stencil"), m.clone()):
            with pytest.raises(anyvirt.AnyvirtError):
                again.console.expect("ready", instructions=10)
            again.console.expect(r"LINE 19 OF WHAT IS TYPED;", instructions=10_000_000)
            assert text.upper() in again.console.text
            again.console.send(".")
            assert again.run(instructions=1_000_000).reason is Reason.POWEROFF


def test_a_machine_with_firmware_of_its_own_goes_on_and_can_be_reset(counter, tmp_path):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", cpus=2)
    m.run(instructions=1000)
    m.snapshot(tmp_path / "s")
    again = anyvirt.Machine.restore(tmp_path / "s", tier="stencil")
    m.run(instructions=1000)
    again.run(instructions=1000)
    assert same(m, again) and count(again) > 0
    again.reset()
    assert [hart.pc for hart in again.harts] == [0x1000, 0x1000]


def test_real_time_goes_on(program, tmp_path):
    with anyvirt.Machine(kernel=program("ticks"), cpus=2, memory="64M", tier="stencil") as m:
        m.run(seconds=LONG, until=lambda: m.clock.now() > 100_000)
        m.snapshot(tmp_path / "s")
        again = anyvirt.Machine.restore(tmp_path / "s", tier="interpreter")
        assert again.clock.now() == m.clock.now()
        assert m.run(seconds=LONG).reason is Reason.POWEROFF
        assert again.run(seconds=LONG).reason is Reason.POWEROFF


# Directories ------------------------------------------------------------------------------------------------


def test_others_can_check_it(counter, tmp_path):
    anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter").snapshot(tmp_path / "s")
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path / "s").returncode == 0
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def test_a_directory_that_is_not_empty_is_left_alone(counter, tmp_path):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="something is there already"):
        m.snapshot(tmp_path)
    with pytest.raises(UsageError, match="something is there already"):
        m.snapshot(tmp_path / "mine")
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        m.snapshot(tmp_path / "nowhere" / "s")
    (tmp_path / "empty").mkdir()
    m.snapshot(tmp_path / "empty")
    anyvirt.Machine.restore(tmp_path / "empty")
    with pytest.raises(UsageError, match="there is no snapshot"):
        anyvirt.Machine.restore(tmp_path / "nothing")


def test_what_cannot_be_finished_leaves_nothing(counter, tmp_path, monkeypatch):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    calls = iter([*[None] * 3, OSError(28, "No space left on device")])

    def fsync(descriptor):
        if (error := next(calls)) is not None:
            raise error

    monkeypatch.setattr(snapshots.os, "fsync", fsync)
    with pytest.raises(UsageError, match="No space left"):
        m.snapshot(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "compressed"])
def small(request, counter, tmp_path_factory):
    """A small snapshot, and its files."""
    directory = tmp_path_factory.mktemp("small") / "s"
    m = anyvirt.Machine(firmware=counter, memory="4M", tier="interpreter", seed=1)
    m.run(instructions=1000)
    m.snapshot(directory, compress=request.param)
    return directory, {path.name: path.read_bytes() for path in directory.iterdir()}


def refuse(content):
    """Restore a snapshot of these files: it must be refused, in one sentence."""
    directory = Path(os.environ["ANYVIRT_STATE"]) / "altered"
    directory.mkdir()
    try:
        for name, data in content.items():
            (directory / name).write_bytes(data)
        with pytest.raises(SnapshotError) as error:
            anyvirt.Machine.restore(directory, tier="interpreter")
        assert "\n" not in str(error.value) and "the snapshot" in str(error.value)
        return str(error.value)
    finally:
        shutil.rmtree(directory)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_byte_that_was_changed_is_found(small, data):
    _, files = small
    name = data.draw(st.sampled_from(sorted(files)))
    position = data.draw(st.integers(0, len(files[name]) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(files[name])
    changed[position] ^= flip
    refuse(files | {name: bytes(changed)})


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_cut_is_found(small, data):
    _, files = small
    name = data.draw(st.sampled_from(sorted(files)))
    length = data.draw(st.integers(0, len(files[name]) - 1))
    refuse(files | {name: files[name][:length]})
    refuse({other: content for other, content in files.items() if other != name})
    refuse(files | {name: files[name] + b"\0"})


def altered(files, change):
    """The files with a manifest that was changed and sums that are right."""
    import hashlib

    manifest = json.loads(files["manifest.json"])
    change(manifest)
    files = files | {"manifest.json": json.dumps(manifest).encode()}
    names = [*manifest.get("sizes", {}), "manifest.json"]
    sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in names if name in files)
    return files | {"SHA256SUMS": sums.encode()}


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(stretches=[[0x9000_0000, length] for _, length in m["stretches"]]),
        lambda m: m["stretches"][-1].__setitem__(0, 0x8000_0800),
        lambda m: m["stretches"][-1].__setitem__(1, 1 << 40),
        lambda m: m.update(stretches=[m["stretches"][-1]] * len(m["stretches"])),
        lambda m: m["banks"][-1].__setitem__(1, 1 << 30),
        lambda m: m["banks"].pop(),
        lambda m: m.update(machine={}),
        lambda m: m["machine"].update(cpus=2),
        lambda m: m["machine"].update(cpus=-1),
        lambda m: m["machine"].update(memory=1 << 60),
        lambda m: m["machine"].update(board="pc"),
        lambda m: m["sizes"].update({"../../etc/passwd": 1}),
        lambda m: m.update(version=3),
        lambda m: m.pop("compression"),
    ],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense_is_refused(small, change):
    refuse(altered(small[1], change))


def test_the_version_is_named(small):
    assert "is of version 3; this anyvirt reads 2" in refuse(altered(small[1], lambda m: m.update(version=3)))


def test_files_may_be_removed_while_the_machine_is_there(small, tmp_path):
    shutil.copytree(small[0], tmp_path / "s")
    m = anyvirt.Machine.restore(tmp_path / "s", tier="interpreter")
    shutil.rmtree(tmp_path / "s")
    before = count(m)
    m.run(instructions=4000)
    assert count(m) == before + 1000


# Clones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", TIERS)
def test_clones_go_on_by_themselves(program, tier):
    with anyvirt.Machine(kernel=program("ticks"), cpus=2, memory="64M", tier=tier, seed=1) as m:
        m.run(instructions=31_000)
        first = m.clone()
        second = first.clone(tier=TIERS[1 - TIERS.index(tier)])
        assert first.tier == tier and second.tier != tier
        assert m.run(instructions=10_000_000).reason is Reason.POWEROFF
        first.run(instructions=43_210)
        third = first.clone()
        for clone in (third, second, first):
            assert clone.run(instructions=10_000_000).reason is Reason.POWEROFF
            assert clone.console.text == m.console.text


def test_nobody_sees_what_others_write(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    m.run(instructions=4006)
    clones = [m.clone() for _ in range(3)]
    for number, machine in enumerate([m, *clones]):
        machine.memory[COUNT : COUNT + 8] = (number * 1_000_000).to_bytes(8, "little")
        machine.memory[0x8020_0000] = number + 1
    again = clones[1].clone()
    for machine in (m, *clones, again):
        machine.run(instructions=4000)
    counts = [count(machine) for machine in (m, *clones, again)]
    assert counts == [1000, 1_001_000, 2_001_000, 3_001_000, 2_001_000]
    assert [machine.memory[0x8020_0000] for machine in (m, *clones, again)] == [1, 2, 3, 4, 3]


def test_clones_leave_nothing_behind(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    clones = []
    for _ in range(3):
        m.run(instructions=1000)
        clone = m.clone()
        clone.run(instructions=1000)
        clones += [weakref.ref(clone), weakref.ref(clone.board.memory)]
        del clone
    gc.collect()
    assert all(clone() is None for clone in clones)


# Devices ----------------------------------------------------------------------------------------------------


def with_disk(disk):
    def attach(board):
        board.attach_virtio_mmio(
            "disk", lambda wire: VirtioMmio(VirtioBlk(board.memory, disk), interrupt=wire)
        )

    return attach


class OwnDisk:
    """A disk of the user's, of which nobody else knows anything."""

    read_only, block_size = False, 512

    def __init__(self, size):
        self.size = size

    def flush(self):
        pass


def test_devices_of_the_user_s_are_given_again(counter, tmp_path):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", attach=with_disk(OwnDisk(4096)))
    m.snapshot(tmp_path / "s")
    with pytest.raises(SnapshotError, match="disk"):
        anyvirt.Machine.restore(tmp_path / "s")
    with pytest.raises(SnapshotError, match="its disk had 4096 bytes, not 8192"):
        anyvirt.Machine.restore(tmp_path / "s", attach=with_disk(OwnDisk(8192)))
    with pytest.raises(UsageError, match=r"cannot be cloned.*disk"):
        m.clone()
    anyvirt.Machine.restore(tmp_path / "s", attach=with_disk(OwnDisk(4096))).run(instructions=100)
    m.clone(attach=with_disk(OwnDisk(4096))).run(instructions=100)


# Tiers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [1, 2])
def test_the_tier_may_change_between_any_two_runs(program, cpus):
    shown = []
    for changes in (False, True):
        with anyvirt.Machine(
            kernel=program("ticks"), cpus=cpus, memory="64M", tier="interpreter", seed=1
        ) as m:
            for number in range(20):
                if changes:
                    m.switch(TIERS[1 - number % 2])
                m.run(instructions=7000)
            assert m.run(instructions=10_000_000).reason is Reason.POWEROFF
            shown.append(m.console.text)
    assert shown[0] == shown[1]


def test_hooks_breakpoints_and_watchpoints_stay(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    hart = m.harts[0]
    calls = []
    breakpoint = hart.breakpoints.add(RAM_START + 8)
    hook = hart.hooks.at(RAM_START + 4, lambda cpu, address: calls.append(cpu))
    assert m.run(seconds=LONG).stop.hit is breakpoint
    for tier in ("stencil", "interpreter"):
        m.switch(tier)
        assert m.run(seconds=LONG).stop.hit is breakpoint and hart.pc == RAM_START + 8
        assert calls[-1] is hart.cpu
    assert len(calls) == 3 == hook.hits
    breakpoint.remove()
    watchpoint = hart.watchpoints.add(COUNT, 8)
    m.switch("stencil")
    assert m.run(seconds=LONG).stop.hit is watchpoint and hart.pc == RAM_START + 16
    watchpoint.remove()
    hook.remove()
    assert m.run(instructions=1000).reason is Reason.LIMIT


def test_coverage_goes_on_with_the_next_cpu(counter):
    from anyvirt.cpu.coverage import Coverage

    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    m.run(instructions=7)
    with Coverage(m.harts[0].cpu, RAM_START, RAM_START + 0x100) as coverage:
        m.switch("stencil")
        m.run(instructions=3)
        assert coverage.addresses() == [RAM_START + offset for offset in (4, 8, 12)]


def test_an_unknown_tier_is_refused(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    with pytest.raises(UsageError, match="there is no tier 'fast'"):
        m.switch("fast")
    assert m.tier == "interpreter"


# While it runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"seconds": 3600}, {"instructions": 1 << 60}])
def test_other_threads_may_ask_while_it_runs(counter, tmp_path, limit):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    endings = []
    thread = threading.Thread(target=lambda: endings.append(m.run(**limit)))
    thread.start()
    try:
        while not m.is_running:
            pass
        m.switch("stencil")
        clones = [m.clone() for _ in range(3)]
        m.snapshot(tmp_path / "s")
        m.switch("interpreter")
    finally:
        m.stop()
        thread.join()
    assert endings[0].reason is Reason.STOPPED and not m.is_running
    counts = [count(clone) for clone in (*clones, anyvirt.Machine.restore(tmp_path / "s"), m)]
    assert counts == sorted(counts)
    before = counts[0]
    clones[0].run(instructions=8000)
    assert count(clones[0]) > before


def test_a_stop_while_the_run_is_held_counts(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    endings = []
    thread = threading.Thread(target=lambda: endings.append(m.run(seconds=3600)))
    thread.start()
    while not m.is_running:
        pass
    m.while_standing(m.stop)
    thread.join(LONG)
    assert [ending.reason for ending in endings] == [Reason.STOPPED]


@pytest.mark.parametrize("limit", [{"seconds": LONG}, {"instructions": 10_000}])
def test_a_hook_may_not_wait_for_the_run_that_it_is_in(counter, tmp_path, limit):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter")
    m.harts[0].hooks.at(RAM_START, lambda *_: m.snapshot(tmp_path / "s"))
    with pytest.raises(UsageError, match="between runs"):
        m.run(**limit)
    with pytest.raises(UsageError, match="between runs"):
        m.run(**limit, until=m.clone)
    assert list(tmp_path.iterdir()) == []
