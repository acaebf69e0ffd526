"""Images that snapshots refer to: files that nobody writes to any more, and are found out if anybody does.

A disk that writes to an image goes on in another one, an overlay beside it, as soon as a snapshot needs the
image as it is.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anyvirt.errors import UsageError
from anyvirt.images.host_file import synchronize_directory
from anyvirt.images.qcow2 import create_qcow2, image_files
from anyvirt.machines.disks.image import ImageDisk, open_image

if TYPE_CHECKING:
    from anyvirt.machines.disks.content import DiskBase, Image

_NUMBERED = re.compile(r"(.+?)\.[0-9]+\.qcow2")


class FileIdentity(NamedTuple):
    """A file as it was; whoever writes to it changes this."""

    path: Path
    size: int
    modified: int
    """Nanoseconds since 1970."""

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Of now. Raises UsageError if it is not there."""
        try:
            status = path.stat()
        except OSError as error:
            raise UsageError(f"the disk {path} cannot be found any more: {error.strerror}") from None
        return cls(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class FrozenImage:
    """An image as it was, with the backing files behind it."""

    path: Path
    format: str
    files: tuple[FileIdentity, ...]

    @classmethod
    def of(cls, image: Image) -> FrozenImage:
        """Of an image as it is now. Raises UsageError and ImageError."""
        path = Path(os.path.abspath(image.path))
        files = image_files(path, format=image.format)
        return cls(path, image.format, tuple(FileIdentity.of(file) for file in files))

    def check(self) -> None:
        """Raises UsageError if it has changed since, or is not there any more."""
        for file in self.files:
            if FileIdentity.of(file.path) != file:
                raise UsageError(f"the disk {file.path} has changed since the snapshot was taken")


class NextImage:
    """The overlay that a disk goes on in, while it is not known yet whether it does."""

    def __init__(self, base: DiskBase, frozen: FrozenImage) -> None:
        """Make the overlay's file. Raises UsageError and ImageError."""
        self._base, self._frozen = base, frozen
        if stat.S_ISBLK(frozen.path.stat().st_mode):
            raise UsageError(
                f"the disk {frozen.path} is a block device, which a snapshot cannot hold still: "
                "give the guest an overlay image on it"
            )
        self.path = _free_name(frozen.path)
        create_qcow2(self.path, base.size, backing_file=frozen.path.name, backing_format=frozen.format)
        synchronize_directory(self.path.parent)

    def take(self) -> None:
        """Go on in it."""
        base = self._base
        before = base.image
        if isinstance(before, ImageDisk):
            before.share()
        base.image = open_image(
            self.path, format="qcow2", read_only=False, size=base.size, block_size=base.block_size
        )
        base.frozen = self._frozen
        before.close()

    def remove(self) -> None:
        """Do without it."""
        self.path.unlink(missing_ok=True)


def freeze(base: DiskBase) -> tuple[FrozenImage, NextImage | None]:
    """What holds the image's present content, and what its disk has to go on in, if one writes to it.

    Whoever calls this holds the base's lock. Raises UsageError and ImageError.
    """
    if base.frozen is not None:
        base.frozen.check()
        return base.frozen, None
    if not base.image.read_only:
        base.image.flush()
    frozen = FrozenImage.of(base.image)
    if base.image.read_only:
        base.frozen = frozen
        return frozen, None
    return frozen, NextImage(base, frozen)


def _free_name(path: Path) -> Path:
    """`disk.1.qcow2` for `disk.img`, and further numbers where there are others already."""
    numbered = _NUMBERED.fullmatch(path.name)
    stem = numbered[1] if numbered else path.stem
    number = 1
    while (found := path.with_name(f"{stem}.{number}.qcow2")).exists():
        number += 1
    return found
