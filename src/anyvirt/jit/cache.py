"""Compiled blobs kept on disk, named by what they were made from and checked in every byte before use."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.jit.apart import made_apart
from anyvirt.jit.blob import Blob, BlobError
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from collections.abc import Callable

_PACKAGE = Path(__file__).parent.parent
_SOURCES = ("typed/*.py", "isa/*.py", "isa/*/*.py", "jit/*.py")
_FILES_KEPT = 128
_CPU_INFORMATION = 8192
"""Bytes of /proc/cpuinfo that hold the first processor's model and flags."""


def load_or_compile(name: str, compile_blob: Callable[[], Blob]) -> Blob:
    """The blob called `name`, from the cache if it is there and sound, else compiled and put there."""
    key = _key(name)
    path = _directory() / f"{name}-{key.hex()[:16]}.blob"
    try:
        blob = Blob.unpack(_read(path), key)
    except (OSError, BlobError):
        blob = _compiled(compile_blob, key)
    else:
        with contextlib.suppress(OSError):
            os.utime(path)
        return blob
    # A cache that cannot be written (a full or read-only disk) costs time, nothing else.
    with contextlib.suppress(OSError):
        _write(path, blob.pack(key))
        _prune(path.parent)
    return blob


def _compiled(compile_blob: Callable[[], Blob], key: bytes) -> Blob:
    try:
        return Blob.unpack(made_apart(lambda: compile_blob().pack(key)), key)
    except BlobError:
        return compile_blob()


def _directory() -> Path:
    return cache_directory() / "code"


def _key(name: str) -> bytes:
    """A digest of all that decides what a blob contains: its name, our sources, the host's processor."""
    return hashlib.sha256(name.encode() + _made_from()).digest()


def version() -> str:
    """A name for what compiles code here: our sources and the host's processor."""
    return _made_from().hex()[:16]


def _made_from() -> bytes:
    return hashlib.sha256(_sources(_PACKAGE) + _processor()).digest()


@functools.cache
def _sources(package: Path) -> bytes:
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(package.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


def _processor() -> bytes:
    with Path("/proc/cpuinfo").open("rb") as file:
        lines = file.read(_CPU_INFORMATION).splitlines()
    wanted = (b"vendor_id", b"cpu family", b"model", b"flags")
    first: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip() in wanted:
            first.setdefault(name.strip(), value)
    return b"\n".join(first.values())


def _read(path: Path) -> bytes:
    """A file that only we (or root) could have written. Raises BlobError for others."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BlobError("belongs to somebody else")
        return file.read()


def _write(path: Path, content: bytes) -> None:
    import tempfile

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _prune(directory: Path) -> None:
    """Keep the blobs that were used last: every change of a source leaves one behind."""
    files = sorted(directory.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[_FILES_KEPT:]:
        path.unlink(missing_ok=True)
