"""Pseudo-terminals of a container's own devpts, opened from inside it."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_PTMX = os.makedev(5, 2)


def open_terminal(rows: int, columns: int) -> tuple[int, str]:
    """A new pseudo-terminal: its controlling end, and the path of the terminal itself (ptmx(4))."""
    controller = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    if os.fstat(controller).st_rdev != _PTMX:
        os.close(controller)
        raise OSError(19, "it is not the terminal multiplexer", "/dev/pts/ptmx")
    fcntl.ioctl(controller, _TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("i", fcntl.ioctl(controller, _TIOCGPTN, bytes(4)))
    fcntl.ioctl(controller, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    return controller, f"/dev/pts/{number}"
