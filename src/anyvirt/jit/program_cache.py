"""Programs kept on disk by names that say what they were made from, checked in every byte before use."""

from __future__ import annotations

import hashlib
import os
import tempfile
from typing import TYPE_CHECKING

from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST_SIZE = 32


def kept_program(name: str) -> bytes | None:
    """The program kept under a name, or None when there is none or it is damaged: its digest follows it."""
    try:
        content = _path(name).read_bytes()
    except OSError:
        return None
    program, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    return program if hashlib.sha256(program).digest() == digest else None


def keep_program(name: str, program: bytes) -> None:
    """Write a program and its digest, all or nothing. A cache that cannot be written is done without."""
    path = _path(name)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    except OSError:
        return
    try:
        with open(descriptor, "wb") as file:
            file.write(program + hashlib.sha256(program).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)


def _path(name: str) -> Path:
    return cache_directory() / "programs" / f"{name}.elf"
