"""qcow2 images against QEMU's own tools: what either writes, the other reads; and what a crash leaves."""

import json
import os
import random
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyvirt.errors import UsageError
from anyvirt.images.errors import ImageError
from anyvirt.images.host_file import HostFile
from anyvirt.images.qcow2 import Mapping, Qcow2Disk, create_qcow2, open_disk
from anyvirt.images.qcow2_format import read_header, write_header
from anyvirt.images.raw import RawDisk

NO_CORRUPTION = (0, 3)  # qemu-img check: 3 says that there are leaked clusters and nothing worse


@pytest.fixture(scope="module", autouse=True)
def qemu_tools():
    for tool in ("qemu-img", "qemu-io"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (package qemu-utils)")


def qemu_img(*words):
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def qemu_io(path, *commands, format="qcow2"):
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(["qemu-io", "-f", format, *words, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "failed" not in done.stdout  # of patterns
    return done.stdout


def check(path):
    """Consistent to the last bit: no corruption and no leak."""
    assert "No errors were found" in qemu_img("check", path)


def content_by_qemu(path, tmp_path):
    raw = tmp_path / "converted"
    qemu_img("convert", "-O", "raw", path, raw)
    return raw.read_bytes()


def read(disk, offset=0, length=None):
    length = disk.size - offset if length is None else length
    buffer = bytearray(length)
    disk.preadv([memoryview(buffer)], offset)
    return bytes(buffer)


def write(disk, offset, data):
    disk.pwritev([memoryview(data)], offset)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "zeros", "discard", "flush", "reopen"]),
        st.integers(0, 20 * 1024),
        st.integers(0, 6 * 512),
        st.integers(1, 255),
    ),
    max_size=25,
)
CLUSTER = 1024
SIZE = 20 * CLUSTER + 512


def apply(disk, model, operation, offset, length, value, cluster=CLUSTER):
    """One operation on a disk and on the bytes that it should hold; whole clusters discarded are zeros."""
    length = min(length, disk.size - offset)
    if operation == "write":
        data = bytes((value + index) & 255 for index in range(length))
        split = length // 3
        disk.pwritev([memoryview(data)[:split], memoryview(data)[split:]], offset)
        model[offset : offset + length] = data
    elif operation == "zeros":
        disk.write_zeros(offset, length)
        model[offset : offset + length] = bytes(length)
    elif operation == "discard":
        first = -(-offset // cluster) * cluster
        end = disk.size if offset + length == disk.size else (offset + length) // cluster * cluster
        disk.discard(offset, length)
        if end > first:
            model[first:end] = bytes(end - first)
    elif operation == "flush":
        disk.flush()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("backed", [False, True])
@settings(max_examples=25, deadline=None)
@given(operations=OPERATIONS)
def test_any_sequence_of_operations_is_what_qemu_sees(tmp_path_factory, version, backed, operations):
    directory = tmp_path_factory.mktemp("image")
    path, model = directory / "disk", bytearray(SIZE)
    options = {}
    if backed:
        base = bytes(index * 7 & 255 for index in range(SIZE // 2))
        (directory / "base").write_bytes(base)
        model[: len(base)] = base
        options = {"backing_file": "base", "backing_format": "raw"}
    create_qcow2(path, SIZE, cluster_bits=10, version=version, **options)
    disk = Qcow2Disk(path)
    for operation, offset, length, value in operations:
        if operation == "reopen":
            disk.close()
            disk = Qcow2Disk(path)
        elif not (operation == "discard" and version == 2 and backed):
            apply(disk, model, operation, offset, length, value)
        assert read(disk) == model
    disk.close()
    check(path)
    converted = content_by_qemu(path, directory)
    assert converted[:SIZE] == model
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    "options",
    ["", "compat=0.10", "cluster_size=512", "cluster_size=2M", "refcount_bits=1", "refcount_bits=8",
     "refcount_bits=64", "lazy_refcounts=on"],
)  # fmt: skip
def test_images_of_qemu_s_are_read_and_written(tmp_path, options):
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), path, "8M")
    qemu_io(path, "write -P 1 0 100k", "write -P 2 3M 1M", "write -z 3M 64k")
    disk = Qcow2Disk(path)
    assert read(disk, 0, 100 << 10) == b"\1" * (100 << 10)
    assert read(disk, 3 << 20, 1 << 20) == bytes(64 << 10) + b"\2" * (960 << 10)
    write(disk, 50 << 10, b"\3" * (2 << 20))
    disk.close()
    qemu_io(path, "read -P 1 0 50k", "read -P 3 50k 2M", "read -P 2 3136k 960k")
    check(path)


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_compressed_images(tmp_path, kind):
    content = b"".join(b"%d " % number for number in range(120_000))[: 640 << 10]
    (tmp_path / "raw").write_bytes(content)
    path = tmp_path / "disk"
    qemu_img("convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", tmp_path / "raw", path)
    disk = Qcow2Disk(path)
    assert read(disk) == content
    assert {extent.mapping for extent in disk.extents()} == {Mapping.COMPRESSED}
    write(disk, 100, b"changed")
    write(disk, 65536 * 3, b"x" * 65536)
    disk.close()
    check(path)
    changed = bytearray(content)
    changed[100:107] = b"changed"
    changed[65536 * 3 : 65536 * 4] = b"x" * 65536
    assert content_by_qemu(path, tmp_path) == changed


def test_snapshots_inside_the_image_keep_their_content(tmp_path):
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", path, "4M")
    qemu_io(path, "write -P 1 0 1M")
    qemu_img("snapshot", "-c", "before", path)
    disk = Qcow2Disk(path)
    write(disk, 0, b"\2" * 200_000)
    disk.discard(512 << 10, 256 << 10)
    disk.close()
    check(path)
    qemu_io(path, "read -P 2 0 200000", "read -P 0 512k 256k")
    qemu_img("snapshot", "-a", "before", path)
    qemu_io(path, "read -P 1 0 1M")
    check(path)


def test_a_chain_of_backing_files(tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "base", "1M")
    qemu_io(tmp_path / "base", "write -P 1 0 1M")
    create_qcow2(tmp_path / "middle", 2 << 20, backing_file="base", backing_format="qcow2")
    with_middle = Qcow2Disk(tmp_path / "middle")
    write(with_middle, 100_000, b"\2" * 300_000)
    with_middle.close()
    create_qcow2(tmp_path / "top", 3 << 20, backing_file="middle", backing_format="qcow2")
    top = Qcow2Disk(tmp_path / "top")
    write(top, 200_000, b"\3" * 10)
    top.discard(0, 65536)
    expected = bytearray(b"\1" * (1 << 20) + bytes(2 << 20))
    expected[100_000:400_000] = b"\2" * 300_000
    expected[200_000:200_010] = b"\3" * 10
    expected[:65536] = bytes(65536)
    assert read(top) == expected
    top.close()
    assert content_by_qemu(tmp_path / "top", tmp_path) == expected
    info = json.loads(qemu_img("info", "--output=json", tmp_path / "top"))
    assert (info["backing-filename"], info["backing-filename-format"]) == ("middle", "qcow2")


def test_the_table_of_reference_counts_grows(tmp_path):
    """With clusters of 512 bytes a table of one cluster counts 8 MiB."""
    path = tmp_path / "disk"
    create_qcow2(path, 14 << 20, cluster_bits=9)
    before = read_header(path.read_bytes()[:4096], what="disk")
    disk = Qcow2Disk(path)
    content = random.Random(1).randbytes(14 << 20)
    for offset in range(0, len(content), 1 << 20):
        write(disk, offset, content[offset : offset + (1 << 20)])
    disk.close()
    after = read_header(path.read_bytes()[:4096], what="disk")
    assert after.table_clusters > before.table_clusters
    check(path)
    assert content_by_qemu(path, tmp_path) == content


def test_room_that_was_given_back_is_used_again(tmp_path):
    path = tmp_path / "disk"
    create_qcow2(path, 4 << 20)
    disk = Qcow2Disk(path)
    for _ in range(5):
        write(disk, 0, b"x" * (2 << 20))
        disk.flush()
        disk.discard(0, 2 << 20)
        disk.flush()
    assert path.stat().st_size < 5 << 20
    assert path.stat().st_blocks * 512 < 1 << 20
    disk.close()
    check(path)


class Recorder:
    """Everything that is written to one file, and when it is certain to be on disk."""

    def __init__(self, path, monkeypatch):
        self.events = []
        self.before = path.read_bytes()
        sound_write, sound_sync = HostFile.write_from, HostFile.sync

        def write_from(file, views, offset):
            if file.path == path:
                self.events.append((offset, b"".join(views)))
            sound_write(file, views, offset)

        def sync(file):
            if file.path == path:
                self.events.append(None)
            sound_sync(file)

        monkeypatch.setattr(HostFile, "write_from", write_from)
        monkeypatch.setattr(HostFile, "sync", sync)
        monkeypatch.setattr(HostFile, "punch", lambda *_: None)

    def after_crash(self, moment, chance):
        """The file if the host crashed: of what was not synced yet, anything may be there or not."""
        content = bytearray(self.before)
        synced = max((index for index in range(moment) if self.events[index] is None), default=0)
        for index, event in enumerate(self.events[:moment]):
            if event is None or (index > synced and chance.random() < 0.5):
                continue
            offset, data = event
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data
        return content


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_at_any_moment_leaves_a_consistent_image(tmp_path, monkeypatch, seed):
    chance = random.Random(seed)
    path = tmp_path / "disk"
    size = 128 << 10  # with clusters of 512 bytes, four L2 tables
    (tmp_path / "base").write_bytes(b"\7" * size)
    create_qcow2(path, size, cluster_bits=9, backing_file="base", backing_format="raw")
    recorder = Recorder(path, monkeypatch)
    disk = Qcow2Disk(path)
    model, certain = bytearray(b"\7" * size), []
    # Clusters that are free and full of what is no table, for tables to be put into.
    write(disk, 0, b"\xab" * (16 << 10))
    disk.flush()
    disk.write_zeros(0, 16 << 10)
    disk.flush()
    model[: 16 << 10] = bytes(16 << 10)
    for step in range(60):
        operation = chance.choice(["write", "write", "zeros", "discard", "flush"])
        apply(disk, model, operation, chance.randrange(size), chance.randrange(3000), step, 512)
        if operation == "flush":
            certain.append((len(recorder.events), bytes(model)))
    disk.close()
    monkeypatch.undo()
    for moment in chance.sample(range(len(recorder.events)), 25):
        path.write_bytes(recorder.after_crash(moment, chance))
        checked = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, timeout=60)
        assert checked.returncode in NO_CORRUPTION, checked.stdout
        Qcow2Disk(path).close()
    for moment, content in certain:
        path.write_bytes(recorder.after_crash(moment, chance))
        reopened = Qcow2Disk(path, read_only=True)
        assert read(reopened) == content
        reopened.close()


def test_an_error_of_the_host_is_no_corruption(tmp_path, monkeypatch):
    """The file system is full in the middle of a flush; later there is room again."""
    path = tmp_path / "disk"
    create_qcow2(path, SIZE, cluster_bits=10)
    disk = Qcow2Disk(path)
    write(disk, 0, b"x" * 5000)
    sound, left = HostFile.write, [2]

    def full(file, data, offset):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        sound(file, data, offset)

    monkeypatch.setattr(HostFile, "write", full)
    with pytest.raises(OSError, match="No space"):
        disk.flush()
    checked = subprocess.run(["qemu-img", "check", path], capture_output=True, timeout=60)
    assert checked.returncode in NO_CORRUPTION
    monkeypatch.undo()
    disk.flush()
    disk.close()
    check(path)
    assert content_by_qemu(path, tmp_path)[:5000] == b"x" * 5000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("extended_l2=on", "uses subclusters"),
        ("data_file=data", "uses an external data file"),
        ("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "is encrypted"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, options, message):
    path = tmp_path / "disk"
    secret = ["--object", "secret,id=s,data=abc"] if "luks" in options else []
    for _ in range(50):
        made = subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *secret, "-o", options, path, "1M"],
            capture_output=True, text=True, timeout=60, cwd=tmp_path,
        )  # fmt: skip
        # On some hosts qemu-img often fails to measure how long a key takes; then it has made nothing.
        if "accurate CPU usage" not in made.stderr:
            break
        path.unlink(missing_ok=True)
    assert made.returncode == 0, made.stderr
    with pytest.raises(ImageError, match=message):
        Qcow2Disk(path)


def test_refusals(tmp_path):
    path = tmp_path / "disk"
    create_qcow2(path, 1 << 20)
    with pytest.raises(ImageError, match="cannot be made: File exists"):
        create_qcow2(path, 1 << 20)
    with pytest.raises(UsageError, match="needs its format"):
        create_qcow2(tmp_path / "other", 1, backing_file="disk")
    disk = Qcow2Disk(path)
    with pytest.raises(ImageError, match="in use"):
        Qcow2Disk(path)
    with pytest.raises(ImageError, match="lie beyond its end"):
        write(disk, (1 << 20) - 1, b"xx")
    disk.close()
    reader = Qcow2Disk(path, read_only=True)
    for change in (lambda: write(reader, 0, b"x"), lambda: reader.discard(0, 65536)):
        with pytest.raises(ImageError, match="reading only"):
            change()
    reader.flush()
    reader.close()
    with path.open("r+b") as file:
        file.seek(79)
        file.write(b"\1")  # dirty
    with pytest.raises(ImageError, match="repair it with qemu-img check"):
        Qcow2Disk(path)
    Qcow2Disk(path, read_only=True).close()


def test_a_backing_file_without_a_format_is_not_guessed(tmp_path):
    (tmp_path / "base").write_bytes(bytes(1 << 20))
    header = read_header(_created(tmp_path), what="it")
    path = tmp_path / "disk"
    content = path.read_bytes()
    from dataclasses import replace

    path.write_bytes(write_header(replace(header, backing_file="base")).ljust(65536, b"\0") + content[65536:])
    with pytest.raises(ImageError, match="does not say the format of its backing file"):
        Qcow2Disk(path)
    remote = write_header(replace(header, backing_file="nbd:host:1", backing_format="raw"))
    path.write_bytes(remote.ljust(65536, b"\0") + content[65536:])
    with pytest.raises(ImageError, match="not a local file"):
        Qcow2Disk(path)
    loop = write_header(replace(header, backing_file="disk", backing_format="qcow2"))
    path.write_bytes(loop.ljust(65536, b"\0") + content[65536:])
    with pytest.raises(ImageError, match="backing files behind one another"):
        Qcow2Disk(path, read_only=True)


def _created(tmp_path):
    create_qcow2(tmp_path / "disk", 1 << 20)
    return (tmp_path / "disk").read_bytes()


@settings(max_examples=150, deadline=None)
@given(
    damage=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=4), cut=st.integers(0, 3000)
)
def test_damaged_headers_are_one_sentence(tmp_path_factory, damage, cut):
    path = tmp_path_factory.mktemp("damaged") / "disk"
    create_qcow2(path, SIZE, cluster_bits=10)
    content = bytearray(path.read_bytes())
    for offset, value in damage:
        content[offset] = value
    path.write_bytes(content[: max(0, len(content) - cut)])
    try:
        disk = Qcow2Disk(path)
        read(disk, 0, min(disk.size, SIZE))
        disk.close()
    except ImageError:
        pass
    os.unlink(path)


def test_raw_disks_and_the_choice_of_a_format(tmp_path):
    path = tmp_path / "raw"
    path.write_bytes(b"a" * 8192)
    disk = open_disk(path)
    assert isinstance(disk, RawDisk)
    write(disk, 4096, b"bc")
    assert read(disk, 4095, 4) == b"abca"
    disk.discard(0, 4096)
    disk.flush()
    assert read(disk, 0, 10) in (bytes(10), b"a" * 10)
    with pytest.raises(ImageError, match="lie beyond"):
        read(disk, 8000, 1000)
    disk.close()
    create_qcow2(tmp_path / "q", 1 << 20)
    disk = open_disk(tmp_path / "q")
    assert isinstance(disk, Qcow2Disk)
    disk.close()
    forced = open_disk(tmp_path / "q", format="raw", read_only=True)
    assert isinstance(forced, RawDisk)
    forced.close()
    with pytest.raises(UsageError, match="vmdk is no format"):
        open_disk(path, format="vmdk")
