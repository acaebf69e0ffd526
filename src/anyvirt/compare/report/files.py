"""Writing a report's file: all of it or nothing."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace `path` by a file with `text`. Raises UsageError with the reason when that is not possible."""
    if path.is_dir():
        raise UsageError(f"the report cannot be written to {path}: it is a directory")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise UsageError(f"the report cannot be written to {path}: {error.strerror}") from None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise UsageError(f"the report cannot be written to {path}: {error.strerror}") from None
