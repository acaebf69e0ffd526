"""System calls that tell and set what a process is: names, limits, options, affinity of its resources."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from anyvirt.linux.emulation import hiding, host
from anyvirt.linux.emulation.table import system_call

if TYPE_CHECKING:
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.linux.emulation.process import Process

_UTSNAME_FIELD = 65
_MACHINE_FIELD = 4
_RLIMIT = struct.Struct("<QQ")
INFINITY = (1 << 64) - 1
RLIMIT_DATA, RLIMIT_STACK, RLIMIT_AS = 2, 3, 9
_OWN_LIMITS = (RLIMIT_DATA, RLIMIT_STACK, RLIMIT_AS)
"""Limits on memory hold for the guest's memory, so the host must not apply them to the emulator."""


@system_call("uname", "pointer")
def uname(process: Process, buffer: int) -> int:
    """The host's names, with the guest's machine"""
    pointer = process.memory.host_address(buffer, _UTSNAME_FIELD * 6)
    result = host.named("uname", pointer)
    if result == 0:
        machine = process.abi.machine.ljust(_UTSNAME_FIELD, b"\0")
        process.memory.write(buffer + _MACHINE_FIELD * _UTSNAME_FIELD, machine)
    return result


class MemoryLimits:
    """The guest's own limits on memory: soft and hard, in bytes, as setrlimit(2) has them."""

    def __init__(self) -> None:
        import resource

        self._values: dict[int, tuple[int, int]] = {}
        for number in _OWN_LIMITS:
            soft, hard = resource.getrlimit(number)
            self._values[number] = (soft & INFINITY, hard & INFINITY)

    def __getitem__(self, number: int) -> tuple[int, int]:
        return self._values[number]

    def change(self, number: int, soft: int, hard: int) -> int:
        """Set a limit; 0 or a negative errno."""
        if soft > hard:
            return -errno.EINVAL
        if hard > self._values[number][1] and os.geteuid() != 0:
            return -errno.EPERM
        self._values[number] = (soft, hard)
        return 0

    def allows(self, memory: FlatMemory, growth: int) -> bool:
        """Whether RLIMIT_AS lets the guest map `growth` more bytes."""
        soft = self._values[RLIMIT_AS][0]
        if soft == INFINITY:
            return True
        return sum(part.end - part.start for part in memory.mappings) + growth <= soft


@system_call("prlimit64", "int int pointer pointer")
def prlimit64(process: Process, pid: int, number: int, new: int, old: int) -> int:
    """Get and set a limit of resources"""
    if number not in _OWN_LIMITS or pid not in (0, os.getpid()):
        return host.named(
            "prlimit64", pid, number, process.pointer(new, _RLIMIT.size), process.pointer(old, _RLIMIT.size)
        )
    before = process.limits[number]
    if new:
        result = process.limits.change(number, *_RLIMIT.unpack(process.memory.read(new, _RLIMIT.size)))
        if result < 0:
            return result
    if old:
        process.memory.write(old, _RLIMIT.pack(*before))
    return 0


@system_call("getrlimit", "int pointer")
def getrlimit(process: Process, number: int, old: int) -> int:
    """Get a limit of resources"""
    return prlimit64(process, 0, number, 0, old) if old else -errno.EFAULT


@system_call("setrlimit", "int pointer")
def setrlimit(process: Process, number: int, new: int) -> int:
    """Set a limit of resources"""
    return prlimit64(process, 0, number, new, 0) if new else -errno.EFAULT


_PERSONALITY_QUERY = 0xFFFF_FFFF
_PERSONALITIES = 0x0040000 | 0x0020000
"""ADDR_NO_RANDOMIZE and UNAME26; the others would change how the emulator's own memory is mapped."""


@system_call("personality", "flags")
def personality(process: Process, persona: int) -> int:
    """Set the execution domain; only flags that leave the emulator's memory alone"""
    if persona != _PERSONALITY_QUERY and persona & ~_PERSONALITIES:
        return -errno.EINVAL
    return host.named("personality", persona)


# prctl(2) options (include/uapi/linux/prctl.h): those with a number, and those with a pointer to `int`.
_PRCTL_NUMBERS = frozenset((1, 7, 8, 13, 14, 23, 24, 27, 28, 29, 30, 36, 38, 39, 41, 42, 47, 0x59616D61))
_PRCTL_INTEGER_POINTERS = frozenset((2, 37))
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4
_COMMAND_SIZE = 16


@system_call("prctl", "int size size size size")
def prctl(process: Process, option: int, second: int, third: int, fourth: int, fifth: int) -> int:
    """Change options of the process; those that would act on the emulator's memory are refused"""
    if option in (_PR_SET_NAME, _PR_GET_NAME):
        size = 0 if option == _PR_SET_NAME else _COMMAND_SIZE
        return host.named("prctl", option, process.memory.host_address(second, size), 0, 0, 0)
    if option in (_PR_GET_DUMPABLE, _PR_SET_DUMPABLE):
        return _dumpable(option, second)
    if option in _PRCTL_INTEGER_POINTERS:
        return host.named("prctl", option, process.memory.host_address(second, 4), 0, 0, 0)
    if option in _PRCTL_NUMBERS:
        return host.named("prctl", option, second, third, fourth, fifth)
    return -errno.EINVAL


def _dumpable(option: int, value: int) -> int:
    """In a root of the guest's own the emulator stays hidden: its /proc/PID/exe leads to the host's files."""
    if not hiding.is_hidden():
        return host.named("prctl", option, value, 0, 0, 0)
    if option == _PR_SET_DUMPABLE and value not in (0, 1):
        return -errno.EINVAL
    return int(option == _PR_GET_DUMPABLE)
