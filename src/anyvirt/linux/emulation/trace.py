"""ANYVIRT_STRACE=1: each system call with its arguments and result on standard error, as strace(1) does.

Tracing wraps the table's entries, so that it costs nothing when it is off.
"""

from __future__ import annotations

import errno
import os
import signal as names
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import GuestFault
from anyvirt.linux.emulation.table import Kind, RegistersReplaced, SystemCall, signed

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence

    from anyvirt.linux.emulation.process import Process
    from anyvirt.linux.emulation.registry import Table

_SHOWN_BYTES = 32
_AT_FDCWD = -100
_INPUTS = frozenset(("write", "pwrite64", "sendto", "sethostname", "setdomainname", "setxattr", "fsetxattr"))
"""Calls whose buffer is the guest's to read; in others it has nothing to show before the call."""


class TracedTable(Mapping[int, SystemCall]):
    """A table whose calls report themselves."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._traced: dict[int, SystemCall] = {}

    def __getitem__(self, number: int) -> SystemCall:
        call = self._traced.get(number)
        if call is None:
            call = self._traced[number] = _traced(self._served_or_not(number))
        return call

    def __iter__(self) -> Iterator[int]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def _served_or_not(self, number: int) -> SystemCall:
        try:
            return self._table[number]
        except KeyError:
            return SystemCall(
                self._table.name(number), (Kind.SIZE,) * 6, lambda _process, _arguments: -errno.ENOSYS,
                "", False, False,
            )  # fmt: skip


def _traced(call: SystemCall) -> SystemCall:
    def serve(process: Process, arguments: MutableSequence[int]) -> int:
        text = f"{process.thread.number} {call.name}({_arguments(process, call, arguments)})"
        try:
            result = call.serve(process, arguments)
        except GuestFault:
            _write(f"{text} = {_result(-errno.EFAULT)}\n")
            raise
        except OSError as error:
            _write(f"{text} = {_result(-(error.errno or errno.EIO))}\n")
            raise
        except RegistersReplaced:
            _write(f"{text} = ?\n")
            raise
        _write(f"{text} = {_result(result)}\n")
        return result

    def serve_last(process: Process, arguments: MutableSequence[int]) -> int:
        _write(f"{process.thread.number} {call.name}({_arguments(process, call, arguments)}) = ?\n")
        return call.serve(process, arguments)

    ends = call.name in ("exit", "exit_group")
    return SystemCall(
        call.name, call.kinds, serve_last if ends else serve, call.summary, call.passed, call.restart
    )


def _write(text: str) -> None:
    try:
        os.write(2, text.encode("utf-8", "backslashreplace"))
    except OSError:
        # The guest has closed its standard error: there is nowhere to report to.
        return


def _result(result: int) -> str:
    if -4096 < result < 0:
        name = errno.errorcode.get(-result, str(-result))
        return f"-1 {name} ({os.strerror(-result)})"
    return hex(result) if result > 1 << 31 else str(result)


def _arguments(process: Process, call: SystemCall, arguments: MutableSequence[int]) -> str:
    shown = []
    for index, kind in enumerate(call.kinds):
        following = arguments[index + 1] if index + 1 < len(arguments) else 0
        shown.append(_argument(process, call, kind, arguments[index], following))
    return ", ".join(shown)


def _argument(process: Process, call: SystemCall, kind: Kind, value: int, following: int) -> str:
    if kind is Kind.PATH and value:
        return _string(process, value)
    if kind is Kind.BUFFER and call.name in _INPUTS:
        return _buffer(process, value, following)
    return _DISPLAYS[kind](value)


def _fd(value: int) -> str:
    number = signed(value, 32)
    return "AT_FDCWD" if number == _AT_FDCWD else str(number)


def _address(value: int) -> str:
    return hex(value) if value else "NULL"


def _signal(value: int) -> str:
    number = signed(value, 32)
    try:
        return names.Signals(number).name
    except ValueError:
        return str(number)


def _quoted(content: bytes, *, more: bool) -> str:
    text = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else _escaped(byte) for byte in content
    )
    return f'"{text}"' + ("..." if more else "")


def _escaped(byte: int) -> str:
    return {10: "\\n", 9: "\\t", 13: "\\r", 34: '\\"', 92: "\\\\"}.get(byte, f"\\x{byte:02x}")


def _string(process: Process, address: int) -> str:
    try:
        return _quoted(process.memory.read_string(address), more=False)
    except (GuestFault, OSError):
        return hex(address)


def _buffer(process: Process, address: int, length: int) -> str:
    try:
        content = process.memory.read(address, min(length, _SHOWN_BYTES))
    except GuestFault:
        return hex(address)
    return _quoted(content, more=length > _SHOWN_BYTES)


_DISPLAYS: dict[Kind, Callable[[int], str]] = {
    Kind.INT: lambda value: str(signed(value, 32)),
    Kind.FD: _fd,
    Kind.LONG: lambda value: str(signed(value)),
    Kind.SIZE: lambda value: str(value) if value < 1 << 31 else hex(value),
    Kind.FLAGS: lambda value: hex(value & 0xFFFF_FFFF),
    Kind.MODE: lambda value: f"0{value & 0xFFFF_FFFF:o}",
    Kind.SIGNAL: _signal,
    Kind.POINTER: _address,
    Kind.BUFFER: _address,
    Kind.PATH: _address,
}
