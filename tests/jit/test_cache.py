"""The cache of compiled blobs: sound files are used, all others ignored and replaced."""

import os

import pytest

from anyvirt.jit import cache
from anyvirt.jit.blob import Blob, BlobError


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYVIRT_STATE", str(tmp_path))
    return tmp_path


BLOB = Blob(b"\xc3" * 100, 24, {"entry": 4}, {"files": {"x": [0, 32]}})


class Compiler:
    """Counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return BLOB


def the_file(directory):
    (path,) = directory.glob("cache/code/*")
    return path


def test_a_blob_survives_packing():
    key = bytes(range(32))
    assert Blob.unpack(BLOB.pack(key), key) == BLOB


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:50],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"X" + content[1:],
        lambda content: content[:-30] + bytes([content[-30] ^ 1]) + content[-29:],
        lambda content: content[:150] + bytes([content[150] ^ 1]) + content[151:],
    ],
)
def test_damaged_files_are_no_blobs(damage):
    key = bytes(32)
    with pytest.raises(BlobError):
        Blob.unpack(damage(BLOB.pack(key)), key)


def test_the_second_time_nothing_is_compiled(own_state):
    compiler = Compiler()
    assert cache.load_or_compile("thing", compiler) == BLOB
    assert cache.load_or_compile("thing", compiler) == BLOB
    assert compiler.calls == 1
    assert the_file(own_state).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, None])
def test_unsound_files_are_replaced(own_state, content):
    compiler = Compiler()
    cache.load_or_compile("thing", compiler)
    path = the_file(own_state)
    original = path.read_bytes()
    path.write_bytes(original[:-1] if content is None else content)
    assert cache.load_or_compile("thing", compiler) == BLOB
    assert compiler.calls == 2
    assert path.read_bytes() == original
    cache.load_or_compile("thing", compiler)
    assert compiler.calls == 2


def test_a_blob_of_other_sources_is_not_used(own_state, monkeypatch):
    compiler = Compiler()
    cache.load_or_compile("thing", compiler)
    monkeypatch.setattr(cache, "_processor", lambda: b"another processor")
    cache.load_or_compile("thing", compiler)
    assert compiler.calls == 2


def test_a_file_that_others_may_write_is_not_used(own_state):
    compiler = Compiler()
    cache.load_or_compile("thing", compiler)
    the_file(own_state).chmod(0o666)
    cache.load_or_compile("thing", compiler)
    assert compiler.calls == 2
    cache.load_or_compile("thing", compiler)
    assert compiler.calls == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
def test_a_file_of_somebody_else_is_not_used(own_state):
    compiler = Compiler()
    cache.load_or_compile("thing", compiler)
    os.chown(the_file(own_state), 12345, 12345)
    cache.load_or_compile("thing", compiler)
    assert compiler.calls == 2


def test_a_cache_that_cannot_be_written_costs_only_time(own_state):
    (own_state / "cache").mkdir(mode=0o700)
    (own_state / "cache" / "code").write_text("in the way")
    compiler = Compiler()
    assert cache.load_or_compile("thing", compiler) == BLOB
    assert cache.load_or_compile("thing", compiler) == BLOB
    assert compiler.calls == 2


def test_old_files_are_removed_and_no_temporary_ones_stay(own_state, monkeypatch):
    monkeypatch.setattr(cache, "_FILES_KEPT", 16)
    for number in range(40):
        cache.load_or_compile(f"thing{number}", Compiler())
    files = list((own_state / "cache" / "code").iterdir())
    assert len(files) == 16
    assert all(path.suffix == ".blob" for path in files)
    assert any(path.name.startswith("thing39-") for path in files)


def test_what_is_used_is_kept(own_state, monkeypatch):
    monkeypatch.setattr(cache, "_FILES_KEPT", 4)
    compiler = Compiler()
    cache.load_or_compile("thing", compiler)
    for number in range(8):
        for path in (own_state / "cache" / "code").iterdir():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 10))
        cache.load_or_compile("thing", compiler)
        cache.load_or_compile(f"other{number}", Compiler())
    assert compiler.calls == 1
