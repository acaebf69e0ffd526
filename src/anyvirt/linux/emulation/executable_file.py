"""Opening a file to execute it: what execve(2) demands of programs and of their dynamic linkers."""

from __future__ import annotations

import ctypes
import os
import stat
from errno import EACCES

from anyvirt.linux.emulation import host
from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.procfs import device

AT_FDCWD = -100
_AT_EACCESS = 0x200


def open_executable(path: bytes, directory: int = AT_FDCWD) -> int:
    """A descriptor of a file that may be executed. Its permission is the kernel's to judge, by effective ids.

    Raises OSError with the errno of execve(2).
    """
    content = ctypes.create_string_buffer(path)
    result = host.call(HOST["faccessat2"], directory, ctypes.addressof(content), os.X_OK, _AT_EACCESS)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=None if directory == AT_FDCWD else directory)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_dev == device():
        os.close(fd)
        raise OSError(EACCES, os.strerror(EACCES))
    return fd
