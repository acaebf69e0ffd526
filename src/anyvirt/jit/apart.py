"""Compiling in a child of this process, if it wants that, so that LLVM's 100 MB do not stay in it.

For processes that live long and start with nothing compiled yet, such as a machine's.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPILER = "llvmlite"

_wanted = threading.Event()


def compile_apart() -> None:
    """From now on let children compile, while this process has one thread and not imported LLVM itself."""
    _wanted.set()


def made_apart(make: Callable[[], bytes]) -> bytes:
    """What `make` returns in a child; nothing if it is not to be there, or fails there."""
    if not _wanted.is_set() or _COMPILER in sys.modules or threading.active_count() > 1:
        return b""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _answer(writer, make)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        made = answer.read()
    _, status = os.waitpid(child, 0)
    return made if status == 0 else b""


def _answer(writer: int, make: Callable[[], bytes]) -> None:
    """In the child. Whoever asked does the same if this fails, and sees why."""
    try:
        with os.fdopen(writer, "wb") as answer:
            answer.write(make())
    except BaseException:
        os._exit(1)
    os._exit(0)
