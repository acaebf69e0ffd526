"""Compressed files as kernels and their modules come in: recognized by their first bytes, unpacked whole."""

from __future__ import annotations

import bz2
import importlib
import lzma
import shutil
import subprocess
import zlib
from enum import Enum
from typing import TYPE_CHECKING

from anyvirt.images.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT = 120


class Compression(Enum):
    """Formats by the bytes that a file of theirs begins with."""

    GZIP = b"\x1f\x8b\x08"
    XZ = b"\xfd7zXZ\0"
    ZSTD = b"\x28\xb5\x2f\xfd"
    BZIP2 = b"BZh"
    LZMA = b"\x5d\x00\x00"
    LZ4_LEGACY = b"\x02\x21\x4c\x18"
    LZOP = b"\x89LZO\0\r\n\x1a\n"

    @property
    def label(self) -> str:
        """The format's name in a sentence."""
        return self.name.lower().partition("_")[0]


def compression_of(data: bytes | memoryview) -> Compression | None:
    """How `data`, of which the first 16 bytes suffice, is compressed; None for what is not."""
    head = bytes(data[:16])
    return next((kind for kind in Compression if head.startswith(kind.value)), None)


def decompress(data: bytes, *, what: str) -> bytes:
    """The content of `data`, or `data` itself when it is not compressed; what follows it is ignored.

    Raises ImageError, which calls it `what`, when it is damaged or no program for its format is here.
    """
    kind = compression_of(data)
    if kind is None:
        return data
    try:
        return _UNPACK[kind](data)
    except (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise ImageError(f"{what} cannot be unpacked from its {kind.label} compression: {error}") from None


def _complete(
    decompressor: zlib._Decompress | lzma.LZMADecompressor | bz2.BZ2Decompressor, data: bytes
) -> bytes:
    content = decompressor.decompress(data)
    if not decompressor.eof:
        raise EOFError("it is truncated")
    return content


def _zstd(data: bytes) -> bytes:
    """By Python's own module (3.14), or one that is installed, or the zstd command."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        try:
            return _complete(module.ZstdDecompressor(), data)
        except module.ZstdError as error:
            raise ValueError(error) from None
    return _command(data, "zstd", "-dcq")


def _command(data: bytes, *command: str) -> bytes:
    """What a command makes of its input. Trailing bytes, of which some complain, do not matter."""
    if shutil.which(command[0]) is None:
        raise OSError(f"this needs the command {command[0]}, which is not installed")
    done = subprocess.run(command, input=data, capture_output=True, timeout=_TIMEOUT, check=False)
    if done.returncode != 0 and not done.stdout:
        lines = done.stderr.decode(errors="replace").splitlines()
        raise OSError(lines[-1].strip() if lines else f"{command[0]} failed")
    return done.stdout


_UNPACK: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: lambda data: _complete(zlib.decompressobj(wbits=31), data),
    Compression.XZ: lambda data: _complete(lzma.LZMADecompressor(), data),
    Compression.ZSTD: _zstd,
    Compression.BZIP2: lambda data: _complete(bz2.BZ2Decompressor(), data),
    Compression.LZMA: lambda data: _complete(lzma.LZMADecompressor(), data),
    Compression.LZ4_LEGACY: lambda data: _command(data, "lz4", "-dc"),
    Compression.LZOP: lambda data: _command(data, "lzop", "-dc"),
}
