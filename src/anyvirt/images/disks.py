"""Disks made of directories, by the standard tools of each file system."""

from __future__ import annotations

import os
import shutil
import subprocess
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError
from anyvirt.images.errors import ImageError
from anyvirt.images.store import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOOL_PATHS = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where distributions keep the makers of file systems, which an ordinary user's PATH need not have."""
_TIMEOUT = 3600
_BLOCK = 4096
_LEAST = 16 << 20
_UUID = "00000000-0000-4000-8000-000000000000"
_SECTOR = 512


class FileSystem(StrEnum):
    """File systems that a directory is made into."""

    EXT4 = "ext4"
    EROFS = "erofs"
    SQUASHFS = "squashfs"


_TOOLS = {
    FileSystem.EXT4: ("mke2fs", "e2fsprogs"),
    FileSystem.EROFS: ("mkfs.erofs", "erofs-utils"),
    FileSystem.SQUASHFS: ("mksquashfs", "squashfs-tools"),
}
"""The command that makes each, and the package that has it."""


def make_disk(directory: Path, path: Path, kind: FileSystem, *, size: int | None = None) -> None:
    """Make the raw disk `path` with the content of `directory`, all of it owned by root.

    `size` in bytes is for ext4, whose disk can be written: by default a quarter more than the content, and
    16 MiB. The same content gives the same disk, with ext4 as far as its tool allows. Raises UsageError when
    the tool is not installed, ImageError when it fails; `path` is complete or not there.
    """
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory} to make a disk of")
    if kind is not FileSystem.EXT4 and size is not None:
        raise UsageError(f"the size of a disk with {kind}, which cannot be written, is that of its content")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with Progress(f"making a disk with {kind}"):
            _make(directory, temporary, kind, size)
        _finish(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise ImageError(f"disk {path} cannot be made: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _make(directory: Path, path: Path, kind: FileSystem, size: int | None) -> None:
    tool = _tool(kind)
    if kind is FileSystem.EXT4:
        blocks = (size or _needed_size(directory)) // _BLOCK
        options = f"root_owner=0:0,hash_seed={_UUID},lazy_itable_init=0"
        _run(
            tool, "-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-U", _UUID, "-E", options, "-m", "0",
            "-d", str(directory), str(path), str(blocks),
        )  # fmt: skip
    elif kind is FileSystem.EROFS:
        _run(tool, "--quiet", "--all-root", "-T0", f"-U{_UUID}", str(path), str(directory))
    else:
        _run(
            tool, str(directory), str(path), "-quiet", "-no-progress", "-all-root", "-noappend",
            "-all-time", "0", "-mkfs-time", "0",
        )  # fmt: skip


def _tool(kind: FileSystem) -> str:
    command, package = _TOOLS[kind]
    found = shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}:{_TOOL_PATHS}")
    if found is None:
        raise UsageError(
            f"a disk with {kind} is made by {command}, which is not installed (package {package})"
        )
    return found


def _run(*command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**environment, "E2FSPROGS_FAKE_TIME": "1"},
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ImageError(f"{command[0]} had not ended after {_TIMEOUT} seconds") from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ImageError(f"{command[0]} failed: {lines[-1] if lines else 'it gave no reason'}")


def _needed_size(directory: Path) -> int:
    """What the content of a directory takes in blocks, a quarter more, and some for the file system."""
    blocks = sum(1 + -(-size // _BLOCK) for size in _sizes(directory))
    return (blocks + blocks // 4) * _BLOCK + _LEAST


def _sizes(directory: Path) -> Iterator[int]:
    for parent, directories, names in os.walk(directory):
        for name in (*directories, *names):
            yield os.lstat(Path(parent, name)).st_size


def _finish(path: Path) -> None:
    """A whole number of sectors, and all of it on stable storage."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.truncate(-(-size // _SECTOR) * _SECTOR)
        os.fsync(file.fileno())
