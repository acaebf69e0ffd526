"""Raw disks: what is stored is read again, holes are made where the host can, mistakes are one sentence."""

import os

import pytest

from anyvirt.devices import disk as disk_module
from anyvirt.devices.disk import RawDisk
from anyvirt.errors import UsageError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(1 << 20))
    return path


def read(disk, offset, *sizes):
    pieces = [bytearray(size) for size in sizes]
    disk.preadv([memoryview(piece) for piece in pieces], offset)
    return b"".join(pieces)


def test_pieces_are_read_and_written_in_their_order(path):
    content = path.read_bytes()
    with RawDisk(path) as disk:
        assert disk.size == 1 << 20
        assert read(disk, 512, 1, 2, 509) == content[512:1024]
        disk.pwritev([memoryview(b"ab"), memoryview(b"c" * 510)], 1024)
        disk.flush()
    assert path.read_bytes() == content[:1024] + b"ab" + b"c" * 510 + content[1536:]


def test_a_file_that_ends_within_a_sector_is_filled_up_with_zeros(tmp_path):
    path = tmp_path / "odd"
    path.write_bytes(b"x" * 700)
    with RawDisk(path) as disk:
        assert disk.size == 1024
        assert read(disk, 512, 100, 412) == b"x" * 188 + bytes(324)


def test_partial_transfers_are_continued(path, monkeypatch):
    content = path.read_bytes()
    preadv, pwritev = os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: preadv(fd, [views[0][:7]], offset))
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset: pwritev(fd, [views[0][:5]], offset))
    with RawDisk(path) as disk:
        assert read(disk, 0, 10, 502) == content[:512]
        disk.pwritev([memoryview(b"q" * 9), memoryview(b"r" * 503)], 0)
    assert path.read_bytes()[:512] == b"q" * 9 + b"r" * 503


@pytest.mark.parametrize("may_unmap", [False, True])
@pytest.mark.parametrize("host_can", [False, True])
def test_zeros_are_written_whatever_the_host_can(path, monkeypatch, may_unmap, host_can):
    content = path.read_bytes()
    if not host_can:
        monkeypatch.setattr(RawDisk, "_allocate", lambda *_: False)
        monkeypatch.setattr(disk_module, "_ZEROS", bytes(4096))
    with RawDisk(path) as disk:
        disk.write_zeroes(4096, 3 * 4096 + 512, may_unmap=may_unmap)
    assert path.read_bytes() == content[:4096] + bytes(3 * 4096 + 512) + content[4 * 4096 + 512 :]


def test_what_is_discarded_takes_no_place(path):
    before = path.stat().st_blocks
    with RawDisk(path) as disk:
        disk.discard(0, 1 << 19)
    assert path.stat().st_size == 1 << 20
    if path.stat().st_blocks == before:
        pytest.skip("the file system of the tests has no holes")
    assert not any(path.read_bytes()[: 1 << 19])


def test_mistakes_are_one_sentence(tmp_path, path):
    with pytest.raises(UsageError, match="No such file"):
        RawDisk(tmp_path / "missing")
    with pytest.raises(UsageError, match="disk"):
        RawDisk(tmp_path, read_only=True)
    with pytest.raises(UsageError, match="neither a file nor a block device"):
        RawDisk("/dev/null")
    with RawDisk(path, read_only=True) as disk, pytest.raises(OSError, match="Bad file descriptor"):
        disk.pwritev([memoryview(b"x")], 0)
