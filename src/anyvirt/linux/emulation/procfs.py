"""/proc/self as the guest must see it: its own program, arguments and mappings, not the emulator's.

What is opened is recognised by the file system it is on and by what the kernel calls it, not by how the
guest spelled it, so that links, relative names and directory descriptors lead to the same place.
"""

from __future__ import annotations

import errno
import os
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.linux.emulation.process import Process

_DENIED = frozenset((b"mem", b"pagemap", b"clear_refs", b"syscall", b"stack"))
"""Files that show or change the emulator's own memory and registers."""


@cache
def device() -> int:
    """The device number of /proc, or -1 where it is not mounted."""
    try:
        return os.stat("/proc").st_dev
    except OSError:
        return -1


@cache
def emulator_identity() -> tuple[int, int]:
    """Device and inode of the program that the host's kernel thinks runs."""
    try:
        status = os.stat("/proc/self/exe")
    except OSError:
        return (-1, -1)
    return (status.st_dev, status.st_ino)


def executable(process: Process, path: bytes) -> bytes | None:
    """The guest's program if `path` is a name of /proc/self/exe."""
    if not path.endswith(b"/exe"):
        return None
    names = (b"/proc/self/exe", b"/proc/thread-self/exe", b"/proc/%d/exe" % os.getpid())
    return process.image.path if path in names else None


def replace(process: Process, fd: int, path: bytes, flags: int) -> int:
    """What the guest gets for `fd`, freshly opened as `path`: mostly the same, or an error."""
    name = os.readlink(f"/proc/self/fd/{fd}".encode())
    counted = _COUNTED.get(name.removeprefix(b"/proc/%d/" % os.getpid()))
    if counted is not None:
        return _substitute(
            fd, name, counted(os.pread(fd, _LARGEST_STATUS, 0), len(process.threads.members)), flags
        )
    actual = executable(process, path)
    if actual is not None:
        os.close(fd)
        return os.open(actual, flags)
    if not _is_own(name):
        return fd
    file = name.rpartition(b"/")[2]
    if file in _DENIED or b"/map_files/" in name:
        os.close(fd)
        return -errno.EACCES
    content = _CONTENTS.get(file)
    return fd if content is None else _substitute(fd, file, content(process), flags)


def refused(process: Process, path: bytes, flags: int) -> int:
    """A descriptor of what the guest may read of itself and the kernel refuses, or EACCES.

    The emulator is hidden in a root of the guest's own, and what is hidden belongs to the host's root.
    """
    directory, _, name = path.rpartition(b"/")
    own = (b"/proc/self", b"/proc/thread-self", b"/proc/%d" % os.getpid())
    if directory not in own or name not in _CONTENTS or flags & os.O_ACCMODE != os.O_RDONLY:
        return -errno.EACCES
    memory = _memory_file(name, _CONTENTS[name](process))
    os.set_inheritable(memory, not flags & os.O_CLOEXEC)
    return memory


def _is_own(name: bytes) -> bool:
    """Whether a file of /proc is this process's: that of one of its threads is, too."""
    place, _, rest = name.removeprefix(b"/proc/").partition(b"/")
    if not name.startswith(b"/proc/") or not place.isdigit() or not rest:
        return False
    return int(place) == os.getpid() or os.path.exists(b"/proc/self/task/" + place)


def _substitute(fd: int, name: bytes, content: bytes, flags: int) -> int:
    """Put an anonymous file with `content` in the place of `fd`."""
    memory = _memory_file(name, content)
    os.dup2(memory, fd, inheritable=not flags & os.O_CLOEXEC)
    os.close(memory)
    return fd


def _memory_file(name: bytes, content: bytes) -> int:
    memory = os.memfd_create(os.fsdecode(name))
    os.write(memory, content)
    os.lseek(memory, 0, os.SEEK_SET)
    return memory


def _maps(process: Process) -> bytes:
    lines = []
    for part in process.memory.mappings:
        sharing = "s" if part.shared else "p"
        inode = _inode(part.name)
        place = f"{part.start:08x}-{part.end:08x} {part.protection}{sharing} {part.offset:08x} 00:00 {inode}"
        lines.append(f"{place:<72} {part.name}".rstrip() + "\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def _inode(name: str) -> int:
    if not name.startswith("/"):
        return 0
    try:
        return os.stat(name).st_ino
    except OSError:
        return 0


def _count_in_stat(content: bytes, threads: int) -> bytes:
    """The 20th field of stat is the number of threads; the second may contain anything (proc(5)).

    It is the guest's: some programs do not fork if there are others.
    """
    before, parenthesis, after = content.rpartition(b")")
    fields = after.split(b" ")
    fields[_THREADS_FIELD] = b"%d" % threads
    return before + parenthesis + b" ".join(fields)


def _count_in_status(content: bytes, threads: int) -> bytes:
    return re.sub(rb"^Threads:\t\d+", b"Threads:\t%d" % threads, content, flags=re.MULTILINE)


_COUNTED = {b"stat": _count_in_stat, b"status": _count_in_status}
_LARGEST_STATUS = 1 << 16
_THREADS_FIELD = 20 - 2


def _joined(words: tuple[bytes, ...]) -> bytes:
    return b"".join(word + b"\0" for word in words)


_CONTENTS: dict[bytes, Callable[[Process], bytes]] = {
    b"maps": _maps,
    b"cmdline": lambda process: _joined(process.image.arguments),
    b"environ": lambda process: _joined(process.image.environment),
    b"auxv": lambda process: process.image.auxiliary,
}
