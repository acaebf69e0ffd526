"""What a kernel's file is: its format, its CPU, its version, and what a loader has to know of it.

Linux, Documentation/arch: riscv/boot-image-header.rst, arm64/booting.rst, x86/boot.rst; EFI zboot:
drivers/firmware/efi/libstub/zboot-header.S. ELF: System V ABI, chapter 4.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import StrEnum

from anyvirt.images.compression import compression_of, decompress
from anyvirt.images.errors import ImageError
from anyvirt.isa.names import Isa
from anyvirt.linux.elf import ElfError, parse_elf

_VERSION = re.compile(rb"Linux version ([0-9][^\s\0]{0,127}) ")
_RISCV_HEADER = struct.Struct("<IIQQQIIQ8s4sI")
_ARM64_HEADER = struct.Struct("<IIQQQQQQ4sI")
_ZBOOT_HEADER = struct.Struct("<4s4sIIQ32s")
_DEPTH = 3
"""Wrappings around one another that are unpacked: zboot, and compression in it."""


class KernelFormat(StrEnum):
    """How a kernel is to be loaded."""

    RISCV_IMAGE = "RISC-V Image"
    ARM64_IMAGE = "arm64 Image"
    BZIMAGE = "bzImage"
    ELF = "ELF"


@dataclass(frozen=True)
class KernelImage:
    """A kernel, unpacked from whatever was around it."""

    format: KernelFormat
    isa: Isa
    version: str
    """As uname -r will say in the guest; empty where the file does not tell."""
    content: bytes
    load_offset: int = 0
    """Of an Image: bytes from a 2 MiB boundary of RAM to where it has to be loaded."""
    size: int = 0
    """Of an Image: bytes that it takes in memory, its zeroed data included."""


def recognize_kernel(data: bytes, *, what: str) -> KernelImage:
    """The kernel in a file. Raises ImageError, which calls the file `what`, if it is none that is known."""
    for _ in range(_DEPTH):
        if data[4:8] == b"zimg" and data[:2] == b"MZ":
            data = _zboot_payload(data, what)
        elif compression_of(data) is not None:
            data = decompress(data, what=what)
        else:
            break
    image = _riscv(data) or _arm64(data) or _bzimage(data) or _elf(data)
    if image is None:
        raise ImageError(f"{what} is no kernel of a format known here: {', '.join(KernelFormat)}")
    return image


def _zboot_payload(data: bytes, what: str) -> bytes:
    """A compressed kernel within an EFI program: offset and size of the payload are in its header."""
    if len(data) < _ZBOOT_HEADER.size:
        raise ImageError(f"{what} is a truncated EFI zboot kernel")
    _, _, offset, size, _, _ = _ZBOOT_HEADER.unpack_from(data)
    if offset + size > len(data):
        raise ImageError(f"{what} is a truncated EFI zboot kernel")
    return data[offset : offset + size]


def _riscv(data: bytes) -> KernelImage | None:
    if len(data) < _RISCV_HEADER.size:
        return None
    _, _, offset, size, flags, version, _, _, _, magic, _ = _RISCV_HEADER.unpack_from(data)
    if magic != b"RSC\x05" or flags & 1 or version >> 16 != 0:
        return None  # flag 0: big-endian; major versions promise nothing of each other
    return KernelImage(
        KernelFormat.RISCV_IMAGE, Isa.RISCV64, _linux_version(data), data, offset, max(size, len(data))
    )


def _arm64(data: bytes) -> KernelImage | None:
    if len(data) < _ARM64_HEADER.size:
        return None
    _, _, offset, size, flags, _, _, _, magic, _ = _ARM64_HEADER.unpack_from(data)
    if magic != b"ARM\x64" or flags & 1:
        return None
    return KernelImage(
        KernelFormat.ARM64_IMAGE, Isa.AARCH64, _linux_version(data), data, offset, max(size, len(data))
    )


def _bzimage(data: bytes) -> KernelImage | None:
    """The setup header is at 0x1f1; the version's text is at its field kernel_version plus 0x200."""
    if len(data) < 0x268 or data[0x1FE:0x200] != b"\x55\xaa" or data[0x202:0x206] != b"HdrS":
        return None
    protocol, version_at, flags = (
        *struct.unpack_from("<H", data, 0x206),
        *struct.unpack_from("<H", data, 0x20E),
        *struct.unpack_from("<H", data, 0x236),
    )
    wide = protocol >= 0x20C and flags & 1
    text = data[version_at + 0x200 : version_at + 0x200 + 128] if version_at else b""
    version = text.partition(b"\0")[0].partition(b" ")[0].decode(errors="replace")
    return KernelImage(KernelFormat.BZIMAGE, Isa.X86_64 if wide else Isa.I386, version, data)


def _elf(data: bytes) -> KernelImage | None:
    try:
        elf = parse_elf(data)
    except ElfError:
        return None
    if elf.interpreter is not None:
        return None  # a program
    return KernelImage(KernelFormat.ELF, elf.isa, _linux_version(data), data)


def _linux_version(data: bytes) -> str:
    found = _VERSION.search(data)
    return found[1].decode(errors="replace") if found else ""
