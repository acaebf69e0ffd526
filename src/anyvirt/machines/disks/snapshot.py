"""Disks in snapshots: an image that stays as it is, by its name, and a file with what differs from it."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyvirt.errors import UsageError
from anyvirt.images.errors import ImageError
from anyvirt.images.qcow2_overlay import OverlayWriter, read_overlay
from anyvirt.machines.disks.blocks import BLOCK, BlockFile, Place, block_length
from anyvirt.machines.disks.content import DiskBase, DiskContent, MachineDisk
from anyvirt.machines.disks.freezing import FileIdentity, FrozenImage, NextImage, freeze
from anyvirt.machines.disks.image import open_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from anyvirt.devices.bus import State
    from anyvirt.machines.disks.blocks import Blocks

_FORMATS = ("raw", "qcow2")
_FIELDS = frozenset({"device", "size", "block_size", "read_only", "image", "format", "files", "overlay"})


@dataclass(frozen=True)
class DiskRecord:
    """What a snapshot says of a disk."""

    device: str
    """The name of its controller."""
    size: int
    block_size: int
    read_only: bool
    image: FrozenImage
    overlay: str | None
    """The name of the file with what differs from the image."""

    def save_state(self) -> State:
        """Plain values."""
        return {
            "device": self.device,
            "size": self.size,
            "block_size": self.block_size,
            "read_only": self.read_only,
            "image": os.fspath(self.image.path),
            "format": self.image.format,
            "files": [[os.fspath(path), size, modified] for path, size, modified in self.image.files],
            "overlay": self.overlay,
        }

    @classmethod
    def load_state(cls, state: State, number: int) -> DiskRecord:
        """The opposite of `save_state`. Raises ValueError and TypeError."""
        if (
            not isinstance(state, dict)
            or state.keys() != _FIELDS
            or state["overlay"] not in (None, overlay_name(number))
            or state["format"] not in _FORMATS
            or type(state["read_only"]) is not bool
        ):
            raise ValueError(f"what it says of disk {number} makes no sense")
        files = tuple(FileIdentity(Path(path), int(size), int(time)) for path, size, time in state["files"])
        image = FrozenImage(Path(state["image"]), state["format"], files)
        size, block_size = int(state["size"]), int(state["block_size"])
        if size < 0 or size % 512 or block_size < 512 or block_size & block_size - 1:
            raise ValueError(f"the size of disk {number} makes no sense")
        return cls(str(state["device"]), size, block_size, state["read_only"], image, state["overlay"])


def overlay_name(number: int) -> str:
    """The file of a snapshot with what is on one of its disks."""
    return f"disk.{number}.qcow2"


class DiskSaver:
    """The disks of one machine on their way to a snapshot."""

    def __init__(self, disks: Mapping[str, MachineDisk]) -> None:
        self._disks = disks
        self._frozen: dict[DiskBase, FrozenImage] = {}
        self._next: list[NextImage] = []

    def write(self, directory: Path) -> tuple[list[DiskRecord], dict[str, int]]:
        """Write what has to be in the snapshot; what it says of disks, and the sizes of its files.

        Raises UsageError, ImageError and OSError.
        """
        records, sizes = [], {}
        for number, (device, disk) in enumerate(self._disks.items()):
            image, content = self._freeze(disk.base), disk.freeze()
            overlay = overlay_name(number) if content.blocks else None
            if overlay is not None:
                sizes[overlay] = _write_overlay(directory / overlay, content, image)
            records.append(DiskRecord(device, disk.size, disk.block_size, disk.read_only, image, overlay))
        return records, sizes

    def _freeze(self, base: DiskBase) -> FrozenImage:
        if base not in self._frozen:
            self._frozen[base], following = freeze(base)
            if following is not None:
                self._next.append(following)
        return self._frozen[base]

    def finish(self) -> None:
        """The snapshot is there: what it refers to is not written to any more."""
        for following in self._next:
            following.take()

    def undo(self) -> None:
        """There is no snapshot."""
        for following in self._next:
            following.remove()


@contextmanager
def saving(disks: Mapping[str, MachineDisk]) -> Iterator[DiskSaver]:
    """Save disks; they go on in other images where a snapshot has come of it."""
    saver = DiskSaver(disks)
    with ExitStack() as locks:
        for base in sorted({disk.base for disk in disks.values()}, key=id):
            locks.enter_context(base.lock)
        try:
            yield saver
        except BaseException:
            saver.undo()
            raise
        saver.finish()


def _write_overlay(path: Path, content: DiskContent, image: FrozenImage) -> int:
    """Its size in bytes."""
    blocks, size = dict(sorted(content.blocks.items())), content.base.size
    written = {number: block is not None for number, block in blocks.items()}
    writer = OverlayWriter(path, size, written, backing_file=image.path, backing_format=image.format)
    try:
        buffer = memoryview(bytearray(BLOCK))
        for number, block in blocks.items():
            if block is not None:
                view = buffer[: block_length(number, size)]
                block.file.read_into([view], block.offset)
                writer.write(view)
        return writer.finish()
    finally:
        writer.close()


# Reading ----------------------------------------------------------------------------------------------------


def open_disks(records: list[DiskRecord], overlays: Mapping[str, BlockFile]) -> dict[str, MachineDisk]:
    """The disks of a snapshot, for one machine. `overlays` are its files, which were checked.

    Raises UsageError for an image that has changed or cannot be opened, and ImageError for an overlay.
    """
    for record in records:
        record.image.check()
    return {record.device: _open(record, overlays) for record in records}


def _open(record: DiskRecord, overlays: Mapping[str, BlockFile]) -> MachineDisk:
    image = record.image
    try:
        opened = open_image(
            image.path,
            format=image.format,
            read_only=True,
            size=record.size,
            block_size=record.block_size,
        )
    except ImageError as error:
        raise UsageError(str(error)) from None
    base = DiskBase(opened, frozen=image)
    if record.read_only:
        return MachineDisk(base, None, read_only=True)
    blocks: Blocks = {}
    if record.overlay is not None:
        blocks = _read_blocks(overlays[record.overlay], record)
    return MachineDisk(base, DiskContent(base, blocks))


def _read_blocks(file: BlockFile, record: DiskRecord) -> Blocks:
    header, clusters = read_overlay(file.descriptor, what=str(record.overlay))
    if header.size != record.size or header.backing_file != os.fspath(record.image.path):
        raise ImageError(f"{record.overlay} is the overlay of another disk")
    return {number: None if offset is None else Place(file, offset) for number, offset in clusters.items()}


def load_records(values: Any) -> list[DiskRecord]:  # noqa: ANN401 - from a file
    """What a manifest says. Raises ValueError and TypeError."""
    return [DiskRecord.load_state(value, number) for number, value in enumerate(values)]
