"""Snapshots of machines in directories: whole or not there, and refused unless every byte is right.

A snapshot holds `manifest.json` (what machine it is of, what is where), `state.json` (CPUs, devices, time),
`memory.0` and further ones (what is not zero in RAM and ROM, one stretch behind the other, so that it can be
mapped as it is), `disk.0.qcow2` and further ones (what on disks differs from images outside of the snapshot)
and `SHA256SUMS`, which sha256sum(1) reads. `instance.json` is there if whoever runs the machine has something
to add.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import mmap
import os
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyvirt.cpu.memory import PAGE_SIZE
from anyvirt.cpu.memory_image import BankImage, ImageFile, MemoryImage, Piece, for_each, host_bytes, write_all
from anyvirt.devices.bus import StateError
from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.images.errors import ImageError
from anyvirt.images.host_file import synchronize_directory
from anyvirt.machines.configuration import Configuration
from anyvirt.machines.disks.blocks import BlockFile
from anyvirt.machines.disks.snapshot import load_records, open_disks, saving
from anyvirt.machines.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anyvirt.devices.bus import State
    from anyvirt.machines.disks.content import MachineDisk

FORMAT, VERSION = "anyvirt snapshot", 2
_MANIFEST, _STATE, _SUMS = "manifest.json", "state.json", "SHA256SUMS"
INSTANCE = "instance.json"
"""The file with what whoever runs the machine wants to know of it again."""
_PART = 32 << 20
"""Bytes of memory in each file, so that several threads have something to do."""
_COMPRESSION = "zlib"
_LEVEL = 1
_BYTES = "$bytes"
"""The key by which bytes are found in JSON."""


class SnapshotError(AnyvirtError):
    """A snapshot is damaged, or not one that can be restored here; nothing was made of it."""


@dataclass(frozen=True)
class Snapshot:
    """What is in a snapshot, checked."""

    directory: Path
    origin: Origin
    instance: State | None
    """What whoever has run the machine wanted to know of it again."""


@dataclass(frozen=True)
class _Stretch:
    """Bytes of memory at a host address, and where they go in a file."""

    host: int
    length: int
    part: int
    place: int


# Writing ----------------------------------------------------------------------------------------------------


def write_snapshot(
    directory: Path,
    configuration: Configuration,
    state: State,
    shape: Sequence[tuple[int, int, bool]],
    stretches: Sequence[tuple[int, int, int]],
    disks: Mapping[str, MachineDisk],
    *,
    compress: bool,
    instance: State | None = None,
) -> None:
    """Write a snapshot to a directory that is not there yet, or is empty.

    `shape` and `stretches` are those of `MemoryImage` and `MachineMemory`, `instance` is what whoever runs
    the machine wants to know of it again. Raises UsageError.
    """
    try:
        with saving(disks) as saver, _new_directory(directory) as place:
            records, disk_sizes = saver.write(place)
            placed = _placed(stretches)
            sizes = _write_memory(place, placed, compress=compress) | disk_sizes
            sizes[_STATE] = _write(place / _STATE, _to_json(state))
            if instance is not None:
                sizes[INSTANCE] = _write(place / INSTANCE, _to_json(instance))
            manifest = {
                "format": FORMAT,
                "version": VERSION,
                "machine": configuration.save_state(),
                "banks": [list(bank) for bank in shape],
                "stretches": [[address, length] for address, length, _ in stretches],
                "compression": _COMPRESSION if compress else None,
                "disks": [record.save_state() for record in records],
                "sizes": sizes,
            }
            _write(place / _MANIFEST, _to_json(manifest))
            names = [*sizes, _MANIFEST]
            _write(place / _SUMS, _sums([place / name for name in names]))
    except OSError as error:
        raise UsageError(f"the snapshot {directory} cannot be written: {error.strerror}") from None
    except ImageError as error:
        raise UsageError(f"the snapshot {directory} cannot be written: {error}") from None


@contextlib.contextmanager
def _new_directory(directory: Path) -> Iterator[Path]:
    """A directory under another name, which gets its own when everything in it is on the disk."""
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError(f"the snapshot {directory} cannot be written: something is there already")
    place = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        yield place
        place.chmod(0o700)
        synchronize_directory(place)
        place.rename(directory)
        synchronize_directory(directory.parent)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _placed(stretches: Sequence[tuple[int, int, int]]) -> list[_Stretch]:
    """Where in the files the memory goes: a stretch may be divided between two of them."""
    result = []
    for length, host, part, place in _divided([(length, host) for _, length, host in stretches]):
        result.append(_Stretch(host, length, part, place))
    return result


def _divided(lengths: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, int, int]]:
    """Of (length, start) the pieces in each file: length, start, the number of the file, the place there."""
    total = 0
    for length, start in lengths:
        done = 0
        while done < length:
            part, place = divmod(total, _PART)
            now = min(length - done, _PART - place)
            yield now, start + done, part, place
            done, total = done + now, total + now


def _write_memory(place: Path, stretches: list[_Stretch], *, compress: bool) -> dict[str, int]:
    """The files, by name with their sizes."""
    count = stretches[-1].part + 1 if stretches else 0
    sizes = {_part_name(number): 0 for number in range(count)}

    def write(number: int) -> None:
        mine = [stretch for stretch in stretches if stretch.part == number]
        path = place / _part_name(number)
        with open(path, "xb", buffering=0) as file:
            if compress:
                packer = zlib.compressobj(_LEVEL)
                for stretch in mine:
                    file.write(packer.compress(host_bytes(stretch.host, stretch.length)))
                file.write(packer.flush())
            else:
                for stretch in mine:
                    write_all(file.fileno(), host_bytes(stretch.host, stretch.length), stretch.place)
            sizes[path.name] = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())

    for_each(write, range(count))
    return sizes


def _write(path: Path, content: bytes) -> int:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return len(content)


def _part_name(number: int) -> str:
    return f"memory.{number}"


# Reading ----------------------------------------------------------------------------------------------------


def read_snapshot(directory: Path) -> Snapshot:
    """A snapshot, of which every byte has been checked. Raises UsageError and SnapshotError.

    Its files stay open, and what is not compressed stays mapped: nobody may change them. Images outside of it
    that its disks stand on have to be as they were, by size and time.
    """
    if not directory.is_dir():
        raise UsageError(f"there is no snapshot {directory}")
    try:
        return _read(directory)
    except UsageError as error:
        raise SnapshotError(f"the snapshot {directory} cannot be restored: {error}") from None
    except (OSError, ImageError, StateError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SnapshotError(f"the snapshot {directory} is damaged: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{Path(error.filename).name}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, KeyError):
        return f"{_MANIFEST} has no {error}"
    return str(error)


def _read(directory: Path) -> Snapshot:
    content = _read_file(directory / _MANIFEST)
    manifest = _manifest(directory, content)
    sizes: dict[str, int] = manifest["sizes"]
    records = load_records(manifest["disks"])
    overlays = [record.overlay for record in records if record.overlay is not None]
    others = [*overlays, _STATE, *(name for name in sizes if name == INSTANCE)]
    parts = [_part_name(number) for number in range(len(sizes) - len(others))]
    if list(sizes) != [*parts, *others]:
        raise ValueError("it has other files than it should")
    for name, size in sizes.items():
        found = (directory / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found} bytes, not {size}")
    files = [ImageFile(_open(directory / name)) for name in parts]
    blocks = {name: BlockFile(_open(directory / name)) for name in overlays}
    texts = {name: _read_file(directory / name) for name in others if name not in overlays}
    digests: dict[str, str] = {}

    contents: dict[str, bytes | ImageFile | BlockFile] = dict(zip(parts, files, strict=True))
    contents |= blocks | texts | {_MANIFEST: content}

    def check(name: str) -> None:
        digests[name] = _digest(contents[name])

    for_each(check, list(contents))
    sums = "".join(f"{digests[name]}  {name}\n" for name in (*sizes, _MANIFEST)).encode()
    if (found_sums := _read_file(directory / _SUMS)) != sums:
        raise ValueError(_difference(found_sums, digests))
    if manifest["compression"] is not None:
        files = _unpacked(files, manifest["stretches"])
    memory = _memory(manifest["banks"], manifest["stretches"], files)
    configuration, state = Configuration.load_state(manifest["machine"]), _from_json(texts[_STATE])
    origin = Origin(configuration, state, memory, open_disks(records, blocks))
    return Snapshot(directory, origin, _from_json(texts[INSTANCE]) if INSTANCE in texts else None)


def _manifest(directory: Path, content: bytes) -> dict[str, Any]:
    manifest = _from_json(content)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{_MANIFEST} is not one of a snapshot")
    if manifest["version"] != VERSION:
        raise SnapshotError(
            f"the snapshot {directory} is of version {manifest['version']}; this anyvirt reads {VERSION}"
        )
    return manifest


def _difference(sums: bytes, digests: dict[str, str]) -> str:
    """A sentence about what does not agree."""
    lines = sums.decode("ascii", "replace").splitlines()
    for name, digest in digests.items():
        if f"{digest}  {name}" not in lines:
            return f"{name} is not what it was when its sum was written to {_SUMS}"
    return f"{_SUMS} has more than the sums of its files"


def _memory(banks: list[list[int]], stretches: list[list[int]], files: list[ImageFile]) -> MemoryImage:
    """The image, with every number checked: pages of it are put where they say."""
    total = sum(length for _, length in stretches)
    sizes = [os.fstat(file.descriptor).st_size for file in files]
    if total != sum(sizes) or any(size != _PART for size in sizes[:-1]):
        raise ValueError("its memory has another size than its stretches")
    pieces: list[list[Piece]] = [[] for _ in banks]
    for length, start, part, place in _divided([(length, start) for start, length in stretches]):
        number = next(
            (n for n, (bank, size, _) in enumerate(banks) if bank <= start and start + length <= bank + size),
            None,
        )
        if number is None or (start | length | place) % PAGE_SIZE or length <= 0:
            raise ValueError("a stretch of its memory is outside of RAM and ROM")
        offset = start - banks[number][0]
        if pieces[number] and pieces[number][-1].end > offset:
            raise ValueError("stretches of its memory overlap")
        pieces[number].append(Piece(offset, offset + length, files[part], place))
    return MemoryImage(
        tuple(
            BankImage(int(address), int(size), bool(is_ram), tuple(found))
            for (address, size, is_ram), found in zip(banks, pieces, strict=True)
        )
    )


def _unpacked(files: list[ImageFile], stretches: list[list[int]]) -> list[ImageFile]:
    """The content of compressed files in files without names."""
    total = sum(length for _, length in stretches)
    result: list[ImageFile] = [ImageFile(os.memfd_create("anyvirt ram", os.MFD_CLOEXEC)) for _ in files]

    def unpack(number: int) -> None:
        length = min(_PART, total - number * _PART)
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(_content(files[number]), max(length, 1))
        except zlib.error:
            raise ValueError(f"{_part_name(number)} cannot be unpacked") from None
        if len(data) != length:
            raise ValueError(f"{_part_name(number)} has another size than its stretches")
        write_all(result[number].descriptor, memoryview(data), 0)

    for_each(unpack, range(len(files)))
    return result


# Files ------------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> bytes:
    return path.read_bytes()


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _content(file: ImageFile | BlockFile) -> mmap.mmap | bytes:
    size = os.fstat(file.descriptor).st_size
    return mmap.mmap(file.descriptor, size, prot=mmap.PROT_READ) if size else b""


def _digest(data: bytes | ImageFile | BlockFile) -> str:
    return hashlib.sha256(data if isinstance(data, bytes) else _content(data)).hexdigest()


def _sums(paths: list[Path]) -> bytes:
    """The lines that sha256sum(1) would write."""
    digests: dict[Path, str] = {}

    def add(path: Path) -> None:
        with open(path, "rb") as file:
            digests[path] = hashlib.file_digest(file, "sha256").hexdigest()

    for_each(add, paths)
    return "".join(f"{digests[path]}  {path.name}\n" for path in paths).encode()


def _to_json(value: State) -> bytes:
    def plain(found: object) -> object:
        if isinstance(found, bytes | bytearray):
            return {_BYTES: base64.b64encode(found).decode()}
        raise TypeError(f"{type(found).__name__} has no place in a snapshot")

    return json.dumps(value, default=plain, separators=(",", ":")).encode()


def _from_json(content: bytes) -> Any:  # noqa: ANN401
    def restored(found: dict[str, Any]) -> object:
        if found.keys() == {_BYTES}:
            return base64.b64decode(found[_BYTES], validate=True)
        return found

    return json.loads(content, object_hook=restored)
