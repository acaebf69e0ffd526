"""Regions on disk: what is stored comes back, and nothing else ever does."""

import os
import random
import resource
import stat
import struct
import subprocess
import sys
from itertools import pairwise

import pytest

from anyvirt.jit import region_cache
from anyvirt.jit.region_cache import RegionCache, StoredRegion

PAGE = 0x10000
CODE = bytes(range(256)) * 16


def region(entry, size=100):
    image = random.Random(entry).randbytes(size)
    return StoredRegion(entry, [(entry, entry + 8), (entry + 64, entry + 70)], f"{entry:032x}", image)


@pytest.fixture
def cache(tmp_path):
    return RegionCache(tmp_path / "regions", "a kind")


def load(cache, page=PAGE, code=CODE, kind=None):
    """What a process that starts now finds."""
    directory = cache._directory
    return RegionCache(directory, kind or cache._kind.decode()).load(page, code)


def only_file(cache):
    (path,) = cache._directory.iterdir()
    return path


def test_regions_of_a_page_come_back(cache):
    regions = [region(PAGE), region(PAGE + 8, 0), region(PAGE + 256, 70_000)]
    for one in regions:
        cache.store(PAGE, CODE, one)
    assert sorted(load(cache), key=lambda one: one.entry) == regions
    assert stat.S_IMODE(only_file(cache).stat().st_mode) == 0o600
    assert stat.S_IMODE(cache._directory.stat().st_mode) == 0o700


def test_the_latest_region_of_an_entry_counts(cache):
    cache.store(PAGE, CODE, region(PAGE, 10))
    cache.store(PAGE, CODE, region(PAGE, 20))
    assert load(cache) == [region(PAGE, 20)]


@pytest.mark.parametrize(
    "other",
    [{"page": PAGE + 4096}, {"code": CODE[:-1] + b"x"}, {"kind": "another"}],
    ids=["page", "code", "kind"],
)
def test_another_page_content_or_kind_has_other_regions(cache, other):
    cache.store(PAGE, CODE, region(PAGE))
    assert load(cache, **other) == []


def test_a_file_keeps_a_bounded_number_of_regions(cache, monkeypatch):
    monkeypatch.setattr(region_cache, "_REGIONS_OF_A_FILE", 5)
    for number in range(9):
        cache.store(PAGE, CODE, region(PAGE + number))
    assert [one.entry - PAGE for one in load(cache)] == [8, 7, 6, 5, 4]


# Files that are not to be trusted -----------------------------------------------------------------------


def assert_replaced(cache):
    """Whatever is there counts as nothing, and the next region takes its place."""
    assert load(cache) == []
    cache.store(PAGE, CODE, region(PAGE + 16))
    assert load(cache) == [region(PAGE + 16)]


def test_a_file_that_was_cut_off_anywhere(cache):
    cache.store(PAGE, CODE, region(PAGE))
    path = only_file(cache)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert load(cache) == [], length
    assert_replaced(cache)


def test_a_file_with_a_flipped_bit_anywhere(cache):
    cache.store(PAGE, CODE, region(PAGE, 40))
    path = only_file(cache)
    content = path.read_bytes()
    for position in range(len(content)):
        for bit in (1, 0x80):
            changed = bytearray(content)
            changed[position] ^= bit
            path.write_bytes(changed)
            assert load(cache) == [], position
    assert_replaced(cache)


def test_a_file_with_something_behind_it(cache):
    cache.store(PAGE, CODE, region(PAGE))
    with only_file(cache).open("ab") as file:
        file.write(b"\0")
    assert_replaced(cache)


def test_a_file_under_the_name_of_another(cache):
    cache.store(PAGE, CODE, region(PAGE))
    path = only_file(cache)
    cache.store(PAGE + 4096, CODE, region(PAGE))
    (other,) = set(cache._directory.iterdir()) - {path}
    path.write_bytes(other.read_bytes())
    assert_replaced(cache)


@pytest.mark.parametrize(
    "body",
    [
        b"\0",
        struct.pack("<Q16sIII", PAGE, bytes(16), 0, 1, 0),
        struct.pack("<Q16sIII", PAGE, bytes(16), 0, 0xFFFFFFFF, 0),
        struct.pack("<Q16sIII", PAGE, bytes(16), 0xFFFFFFFF, 0, 0),
        struct.pack("<Q16sIIIQQ", PAGE, bytes(16), 1, 5, 0, PAGE, PAGE + 4) + b"1234",
        struct.pack("<Q16sIII", PAGE, bytes(16), 0, 0, 0) + b"rest",
    ],
    ids=["byte", "image", "large-image", "ranges", "short-image", "rest"],
)
def test_lengths_that_cannot_be_right_behind_a_right_checksum(cache, body):
    cache.store(PAGE, CODE, region(PAGE))
    path = only_file(cache)
    path.write_bytes(region_cache._MAGIC + region_cache._checksum(path.name, body) + body)
    assert_replaced(cache)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666], ids=oct)
def test_a_file_that_others_can_write(cache, mode):
    cache.store(PAGE, CODE, region(PAGE))
    only_file(cache).chmod(mode)
    assert_replaced(cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else(cache):
    cache.store(PAGE, CODE, region(PAGE))
    os.chown(only_file(cache), 12345, -1)
    assert_replaced(cache)


def test_a_link_to_a_good_file(cache, tmp_path):
    cache.store(PAGE, CODE, region(PAGE))
    path = only_file(cache)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert_replaced(cache)


def test_a_pipe_in_place_of_a_file_blocks_nobody(cache):
    cache.store(PAGE, CODE, region(PAGE))
    path = only_file(cache)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert_replaced(cache)


def test_a_directory_in_place_of_a_file(cache):
    cache.store(PAGE, CODE, region(PAGE))
    path = only_file(cache)
    path.unlink()
    path.mkdir()
    cache.store(PAGE, CODE, region(PAGE))
    assert load(cache) == []
    assert list(cache._directory.iterdir()) == [path]


def test_a_file_that_is_too_large_is_not_read(cache):
    cache.store(PAGE, CODE, region(PAGE))
    os.truncate(only_file(cache), 1 << 40)
    assert_replaced(cache)


# Trouble with the disk ----------------------------------------------------------------------------------


def test_no_directory_is_an_empty_cache(cache):
    assert load(cache) == []
    cache.prune(0)


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = RegionCache(tmp_path / "file" / "regions", "kind")
    cache.store(PAGE, CODE, region(PAGE))
    assert load(cache) == []


def test_a_disk_that_is_full_leaves_what_was_there(cache):
    cache.store(PAGE, CODE, region(PAGE))
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from anyvirt.jit.region_cache import RegionCache, StoredRegion\n"
        "cache = RegionCache(Path(sys.argv[1]), 'a kind')\n"
        f"cache.store({PAGE}, bytes(range(256)) * 16, StoredRegion({PAGE + 8}, [], '00' * 16, bytes(9000)))\n"
    )
    subprocess.run(
        [sys.executable, "-S", "-c", code, cache._directory, *sys.path],
        check=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert load(cache) == [region(PAGE)]
    assert len(list(cache._directory.iterdir())) == 1


# Size ---------------------------------------------------------------------------------------------------


def test_the_oldest_files_go_when_there_are_too_many(cache):
    for number in range(10):
        cache.store(PAGE + 4096 * number, CODE, region(PAGE, 1000))
        path = cache._directory / cache._name(PAGE + 4096 * number, CODE)
        os.utime(path, (number, number))
    size = path.stat().st_size
    cache.prune(4 * size)
    left = [bool(load(cache, page=PAGE + 4096 * number)) for number in range(10)]
    assert left == [False] * 6 + [True] * 4
    cache.prune(4 * size)
    assert len(list(cache._directory.iterdir())) == 4


def test_what_a_writer_left_that_was_killed_goes_in_time(cache):
    cache.store(PAGE, CODE, region(PAGE))
    left_over = cache._directory / ".new.abc"
    left_over.write_bytes(bytes(10_000))
    os.utime(left_over, (0, 0))
    cache.prune(9_000)
    assert not left_over.exists()
    assert load(cache) == [region(PAGE)]


# Several writers ----------------------------------------------------------------------------------------


def write_many(cache, first):
    for number in range(40):
        cache.store(PAGE, CODE, region(PAGE + first + 8 * number))


def test_writers_at_the_same_time_never_spoil_a_file(cache):
    children = []
    for first in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                write_many(cache, first)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    while children:
        regions = load(cache)
        assert regions == [region(one.entry) for one in regions]
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            assert status == 0
            children.remove(pid)
    regions = load(cache)
    assert regions == [region(one.entry) for one in regions]
    # What one writes another may just have overwritten.
    assert regions != []
    assert len(list(cache._directory.iterdir())) == 1


def test_entries_do_not_repeat_in_a_file(cache):
    for _ in range(3):
        write_many(cache, 0)
    entries = sorted(one.entry for one in load(cache))
    assert all(one < other for one, other in pairwise(entries))
