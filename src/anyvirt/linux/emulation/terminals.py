"""ioctl(2): the requests whose arguments are known, so that their pointers can be checked.

A request that is not in this table is answered as by a device that has not heard of it. Numbers and
structures are those of include/uapi/asm-generic, which x86-64 and riscv64 share.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import TYPE_CHECKING

from anyvirt.linux.emulation import host
from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.table import system_call

if TYPE_CHECKING:
    from anyvirt.linux.emulation.process import Process

_IOCTL = HOST["ioctl"]
_NUMBER = -1
"""In place of a size: the argument is a number, not a pointer."""
_INTERFACE_REQUEST = 40

# fmt: off
_SIZES: dict[int, int] = {
    # Terminals (asm-generic/ioctls.h): struct termios, termio, termios2, winsize, and int
    0x5401: 36, 0x5402: 36, 0x5403: 36, 0x5404: 36,  # TCGETS, TCSETS, TCSETSW, TCSETSF
    0x5405: 18, 0x5406: 18, 0x5407: 18, 0x5408: 18,  # TCGETA, TCSETA, TCSETAW, TCSETAF
    0x5409: _NUMBER, 0x540A: _NUMBER, 0x540B: _NUMBER,  # TCSBRK, TCXONC, TCFLSH
    0x540C: _NUMBER, 0x540D: _NUMBER, 0x540E: _NUMBER,  # TIOCEXCL, TIOCNXCL, TIOCSCTTY
    0x540F: 4, 0x5410: 4, 0x5411: 4, 0x5412: 1,  # TIOCGPGRP, TIOCSPGRP, TIOCOUTQ, TIOCSTI
    0x5413: 8, 0x5414: 8,  # TIOCGWINSZ, TIOCSWINSZ
    0x5415: 4, 0x5416: 4, 0x5417: 4, 0x5418: 4,  # TIOCMGET, TIOCMBIS, TIOCMBIC, TIOCMSET
    0x5419: 4, 0x541A: 4, 0x541B: 4, 0x541D: _NUMBER,  # TIOCGSOFTCAR, TIOCSSOFTCAR, FIONREAD, TIOCCONS
    0x5420: 4, 0x5421: 4, 0x5422: _NUMBER, 0x5423: 4, 0x5424: 4,  # TIOCPKT, FIONBIO, TIOCNOTTY, TIOC[SG]ETD
    0x5425: _NUMBER, 0x5427: _NUMBER, 0x5428: _NUMBER, 0x5429: 4,  # TCSBRKP, TIOCSBRK, TIOCCBRK, TIOCGSID
    0x802C542A: 44, 0x402C542B: 44, 0x402C542C: 44, 0x402C542D: 44,  # TCGETS2, TCSETS2, TCSETSW2, TCSETSF2
    0x80045430: 4, 0x40045431: 4, 0x80045432: 4, 0x5437: _NUMBER,  # TIOCGPTN, TIOCSPTLCK, TIOCGDEV, VHANGUP
    0x80045438: 4, 0x80045439: 4, 0x80045440: 4, 0x5441: _NUMBER,  # TIOCGPKT, GPTLCK, GEXCL, TIOCGPTPEER
    # Any file (asm-generic/ioctls.h, linux/fs.h)
    0x5450: _NUMBER, 0x5451: _NUMBER, 0x5452: 4, 0x5460: 8,  # FIONCLEX, FIOCLEX, FIOASYNC, FIOQSIZE
    0x40049409: _NUMBER, 0x4020940D: 32, 0xC020660B: 32,  # FICLONE, FICLONERANGE, FS_IOC_FIEMAP
    0x80086601: 8, 0x40086602: 8, 0x80087601: 8, 0x40087602: 8,  # FS_IOC_[GS]ETFLAGS, FS_IOC_[GS]ETVERSION
    0x801C581F: 28, 0x401C5820: 28,  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
    0xC0045877: 4, 0xC0045878: 4, 0xC0185879: 24,  # FIFREEZE, FITHAW, FITRIM
    # Block devices (linux/fs.h), loop devices (linux/loop.h)
    0x125D: 4, 0x125E: 4, 0x125F: _NUMBER, 0x1260: 8, 0x1261: _NUMBER,  # BLK…
    0x1268: 4, 0x80081270: 8, 0x80081272: 8, 0x1277: 16,  # BLKSSZGET, BLKBSZGET, BLKGETSIZE64, BLKDISCARD
    0x4C00: _NUMBER, 0x4C01: _NUMBER, 0x4C04: 232, 0x4C05: 232,  # LOOP_SET_FD, CLR_FD, [SG]ET_STATUS64
    0x4C80: _NUMBER, 0x4C81: _NUMBER, 0x4C82: _NUMBER,  # LOOP_CTL_ADD, LOOP_CTL_REMOVE, LOOP_CTL_GET_FREE
    # Sockets (asm-generic/sockios.h) and network interfaces (linux/sockios.h): struct ifreq
    0x8901: 4, 0x8902: 4, 0x8903: 4, 0x8904: 4, 0x8905: 4, 0x8906: 16, 0x8907: 16,
    **dict.fromkeys((0x8910, *range(0x8913, 0x891F), 0x8921, 0x8922, 0x8923, 0x8924), _INTERFACE_REQUEST),
    **dict.fromkeys((0x8927, 0x8929, 0x8933, 0x8934, 0x8935, 0x8936, 0x8942, 0x8943), _INTERFACE_REQUEST),
    0x89A0: 16, 0x89A1: 16, 0x89A2: _INTERFACE_REQUEST, 0x89A3: _INTERFACE_REQUEST,  # bridges
    0x400454CA: _INTERFACE_REQUEST, 0x800454CF: 4, 0x400454CB: _NUMBER, 0x400454CC: _NUMBER,  # tun/tap
    # Clocks and the random device
    0x80247009: 36, 0x4024700A: 36, 0x80045200: 4,  # RTC_RD_TIME, RTC_SET_TIME, RNDGETENTCNT
    # What namespaces say about themselves, of linux/nsfs.h
    0xB701: _NUMBER, 0xB702: _NUMBER, 0xB703: _NUMBER, 0xB704: 4,
}
# fmt: on
_SIOCGIFCONF = 0x8912
_INTERFACES = struct.Struct("<i4xQ")
_MAXIMUM_INTERFACES = 1 << 20


@system_call("ioctl", "fd flags size")
def ioctl(process: Process, fd: int, request: int, argument: int) -> int:
    """Control a terminal, file, block device, socket or network interface"""
    size = _SIZES.get(request)
    if size is None:
        if request == _SIOCGIFCONF:
            return _interfaces(process, fd, argument)
        return -errno.EBADF if _is_closed(fd) else -errno.ENOTTY
    if size != _NUMBER and argument:
        argument = process.memory.host_address(argument, size)
    return process.blocking_call("ioctl", fd, request, argument)


def _is_closed(fd: int) -> bool:
    return host.call(HOST["fcntl"], fd, 1, 0) == -errno.EBADF


def _interfaces(process: Process, fd: int, address: int) -> int:
    """SIOCGIFCONF: `struct ifconf` holds a pointer, NULL to ask for the length alone."""
    length, buffer = _INTERFACES.unpack(process.memory.read(address, _INTERFACES.size))
    if not 0 <= length <= _MAXIMUM_INTERFACES:
        return -errno.EINVAL
    pointer = process.memory.host_address(buffer, length) if buffer else 0
    request = ctypes.create_string_buffer(_INTERFACES.pack(length, pointer))
    result = host.call(_IOCTL, fd, _SIOCGIFCONF, ctypes.addressof(request))
    if result == 0:
        (length,) = struct.unpack_from("<i", request)
        process.memory.write(address, _INTERFACES.pack(length, buffer))
    return result
