"""The store: what was fetched or made once and serves many guests, below the state directory.

An entry is a file or a directory under a key, a relative path that says what it is and which version; blobs
are files under the hash of their content. An entry is made under a temporary name, synced, and renamed, while
a lock keeps other processes that want the same one waiting; so what is there is complete, and may be deleted
when no guest uses it. Long work shows itself on a terminal and nowhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from anyvirt.errors import UsageError
from anyvirt.images.errors import ImageError
from anyvirt.paths import state_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:-]*(/[A-Za-z0-9][A-Za-z0-9._+~:-]*)*")
_CHUNK = 1 << 20
_REFRESH = 0.1
"""Seconds between two updates of what a terminal shows."""


class Store:
    """One store. Two processes may use the same one."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or state_directory() / "images"
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, key: str) -> Path | None:
        """The entry, if it is there."""
        path = self._path(key)
        return path if path.exists() else None

    def file(self, key: str, make: Callable[[BinaryIO], None]) -> Path:
        """The file under `key`; where there is none, `make` writes it."""

        def make_file(place: Path) -> None:
            with place.open("wb") as file:
                make(file)
                file.flush()
                os.fsync(file.fileno())

        return self._entry(key, make_file)

    def make_directory(self, key: str, make: Callable[[Path], None]) -> Path:
        """The directory under `key`; where there is none, `make` fills an empty one."""

        def fill(place: Path) -> None:
            place.mkdir()
            make(place)
            _sync_tree(place)

        return self._entry(key, fill)

    def blob(self, source: BinaryIO, digest: str | None = None, *, what: str = "the blob") -> Path:
        """The file with the content of `source`, under its SHA-256; ImageError if that is not `digest`.

        With a digest, `source` is read only if the blob is not there yet.
        """
        if digest is not None:
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise UsageError(f"{digest!r} is no SHA-256 in hexadecimal")
            found = self.find(f"blobs/{digest}")
            if found is not None:
                return found
        computed = hashlib.sha256()
        with self._temporary() as place:
            with place.open("wb") as file:
                while data := source.read(_CHUNK):
                    computed.update(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if digest not in (None, computed.hexdigest()):
                raise ImageError(f"{what} is not what was expected: its SHA-256 is {computed.hexdigest()}")
            return self._publish(place, self._path(f"blobs/{computed.hexdigest()}"))

    def remove(self, key: str) -> None:
        """Remove an entry; one that is not there is no mistake."""
        path = self._path(key)
        with self._locked(key), self._temporary() as place:
            if path.exists():
                os.replace(path, place)

    def _entry(self, key: str, make: Callable[[Path], None]) -> Path:
        path = self._path(key)
        if path.exists():
            return path
        with self._locked(key):
            if path.exists():
                return path
            with self._temporary() as place:
                make(place)
                return self._publish(place, path)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key) or ".." in key:
            raise UsageError(f"{key!r} cannot be the key of something in the store")
        return self.directory / key

    def _publish(self, place: Path, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            os.replace(place, path)
        _sync(path.parent)
        return path

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A name that nothing has yet; what is left under it goes."""
        directory = Path(tempfile.mkdtemp(dir=self.directory, prefix=".new-"))
        try:
            yield directory / "entry"
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock of an entry: an empty file, which stays."""
        locks = self.directory / ".locks"
        locks.mkdir(exist_ok=True)
        with (locks / hashlib.sha256(key.encode()).hexdigest()[:16]).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Progress:
    """One line on a terminal that says how far some work is; elsewhere, nothing. A context manager."""

    def __init__(self, what: str, total: int | None = None) -> None:
        """`total` is in bytes; without it only what is done is shown."""
        self._what = what
        self._total = total
        self._done = 0
        self._shown_at = 0.0
        self._on_terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def advance(self, size: int) -> None:
        """`size` bytes more are done."""
        self._done += size
        if time.monotonic() - self._shown_at >= _REFRESH:
            self._show()

    def _show(self) -> None:
        if not self._on_terminal:
            return
        self._shown_at = time.monotonic()
        if self._total:
            state = f" {min(100, self._done * 100 // self._total)} %"
        else:
            state = f" {self._done / 1e6:.1f} MB" if self._done else " ..."
        sys.stderr.write(f"\r\x1b[K{self._what}{state}")
        sys.stderr.flush()


def _sync_tree(directory: Path) -> None:
    """Have all of a directory written to disk before its name says that it is complete."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                _sync(path)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
