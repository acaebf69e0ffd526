"""The RISC-V Supervisor Binary Interface, answered by the host: calls that a kernel makes in S-mode.

RISC-V Supervisor Binary Interface Specification 2.0. A call finds the number of its extension in a7, of its
function in a6 and arguments from a0 on; it returns an error in a0 and a value in a1 (chapter 3).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from anyvirt.cpu.memory import GuestFault
from anyvirt.devices.uart16550 import LineStatus, Register
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.firmware import HIDDEN, RETURN, SET_TIMER
from anyvirt.machines.hart import Hart, HartState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from anyvirt.machines.machine import Machine

    Function: TypeAlias = Callable[["Sbi", Hart, Sequence[int]], "Answer"]
    Answer: TypeAlias = tuple["Error", int]

_VERSION = 2 << 24
_IMPLEMENTATION = 0x616E_7976
"""Not one of the registered numbers: "anyv"."""
_IMPLEMENTATION_VERSION = 1
_SUPERVISOR_CALL = 9
_MACHINE_SOFTWARE = 3
_WORD = (1 << 64) - 1
_MOST_PRINTED = _MOST_READ = 1 << 16
"""Bytes of one call; the guest calls again for the rest."""
_A0, _A1, _A2, _A6, _A7 = 10, 11, 12, 16, 17
_HALF_WORD = (1 << 32) - 1
_SUPERVISOR, _SUPERVISOR_SOFTWARE = 1, 1 << 1
_NON_RETENTIVE = 1 << 31
"""In the type of a suspension (section 9.4, table 3): the hart goes on elsewhere."""
_FIRST_PLATFORM_SUSPEND = 0x1000_0000


class Error(IntEnum):
    """Results of calls (chapter 3, table 1)."""

    SUCCESS = 0
    FAILED = -1
    NOT_SUPPORTED = -2
    INVALID_PARAM = -3
    DENIED = -4
    INVALID_ADDRESS = -5
    ALREADY_AVAILABLE = -6


class Extension(IntEnum):
    """Extensions that are there, by number."""

    LEGACY_SET_TIMER = 0x00
    LEGACY_CONSOLE_PUTCHAR = 0x01
    LEGACY_CONSOLE_GETCHAR = 0x02
    LEGACY_CLEAR_IPI = 0x03
    LEGACY_SEND_IPI = 0x04
    LEGACY_REMOTE_FENCE_I = 0x05
    LEGACY_REMOTE_SFENCE_VMA = 0x06
    LEGACY_REMOTE_SFENCE_VMA_ASID = 0x07
    LEGACY_SHUTDOWN = 0x08
    BASE = 0x10
    TIME = 0x5449_4D45
    IPI = 0x73_5049
    RFENCE = 0x5246_4E43
    HSM = 0x48_534D
    SRST = 0x5352_5354
    DBCN = 0x4442_434E


_LAST_LEGACY = 0x0F
_MOST_RESET_TYPE, _FAILED = 2, 1


class Sbi:
    """Answers calls; it is called by the thread of the hart that makes one, which stands in the firmware."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def answer(self, hart: Hart) -> None:
        """Do what the hart has called for, and let it go on behind its call."""
        x = hart.x
        if hart.system.control("mcause") != _SUPERVISOR_CALL:
            # Everything else is delegated: only M-mode itself can have run into it.
            self._machine.end(Ending(Reason.FAILURE))
            return
        hart.cpu.pc = RETURN
        if hart.is_suspended:
            self._resume(hart)
            return
        extension, function = x[_A7], x[_A6]
        if extension <= _LAST_LEGACY:
            x[_A0] = self._legacy(hart, extension) & _WORD
            return
        if (extension, function) == (Extension.TIME, 0):
            # The firmware does it with what is in a0, and returns.
            hart.cpu.pc = SET_TIMER
            return
        error, value = self._call(hart, extension, function)
        if hart.is_suspended:
            # The registers keep what was asked for until it goes on.
            return
        x[_A0], x[_A1] = error & _WORD, value & _WORD

    def _call(self, hart: Hart, extension: int, number: int) -> Answer:
        function = _FUNCTIONS.get((extension, number))
        if function is None:
            return Error.NOT_SUPPORTED, 0
        return function(self, hart, list(hart.x[_A0 : _A0 + 6]))

    def _legacy(self, hart: Hart, extension: int) -> int:
        """Chapter 5: these have a result in a0 only."""
        argument = hart.x[_A0]
        if extension == Extension.LEGACY_SET_TIMER:
            hart.cpu.pc = SET_TIMER
            return argument
        if extension == Extension.LEGACY_CONSOLE_PUTCHAR:
            self._machine.console.output(bytes([argument & 0xFF]))
            return 0
        if extension == Extension.LEGACY_CONSOLE_GETCHAR:
            typed = self._typed(1)
            return typed[0] if typed else -1
        if extension == Extension.LEGACY_SHUTDOWN:
            self._machine.end(Ending(Reason.POWEROFF))
            return 0
        return self._legacy_between_harts(hart, extension)

    def _legacy_between_harts(self, hart: Hart, extension: int) -> int:
        """The harts are those of a mask at a virtual address of the caller's, all of them for address 0."""
        if extension == Extension.LEGACY_CLEAR_IPI:
            pending = hart.csr["mip"]
            hart.csr["mip"] = pending & ~_SUPERVISOR_SOFTWARE
            return int(pending & _SUPERVISOR_SOFTWARE != 0)
        if extension not in _LEGACY_BETWEEN_HARTS:
            return Error.NOT_SUPPORTED
        mask, base = 0, _WORD
        if hart.x[_A0]:
            mode, hart.privilege = hart.privilege, _SUPERVISOR
            try:
                mask, base = int.from_bytes(hart.cpu.look(hart.x[_A0], 8), "little"), 0
            except (GuestFault, OverflowError):
                return Error.INVALID_ADDRESS
            finally:
                hart.privilege = mode
        error, _ = _LEGACY_BETWEEN_HARTS[extension](self, hart, (mask, base))
        return error

    # Base (chapter 4) -----------------------------------------------------------------------------------

    def _version(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        return Error.SUCCESS, _VERSION

    def _implementation(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        return Error.SUCCESS, _IMPLEMENTATION

    def _implementation_version(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        return Error.SUCCESS, _IMPLEMENTATION_VERSION

    def _probe(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        return Error.SUCCESS, int(arguments[0] in _EXTENSIONS)

    def _nothing(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        """Vendor, architecture and implementation of the machine: 0 as in its registers."""
        return Error.SUCCESS, 0

    # Between harts (chapters 7 and 8) -------------------------------------------------------------------

    def _chosen(self, mask: int, base: int) -> list[Hart] | None:
        """The harts of a mask, all of them for a base of -1; None if one is not there."""
        harts = self._machine.harts
        if base == _WORD:
            return list(harts)
        numbers = [base + bit for bit in range(64) if mask >> bit & 1]
        if any(number >= len(harts) for number in numbers):
            return None
        return [harts[number] for number in numbers]

    def _send_interrupt(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        chosen = self._chosen(arguments[0], arguments[1])
        if chosen is None:
            return Error.INVALID_PARAM, 0
        for other in chosen:
            other.system.set_interrupt(_MACHINE_SOFTWARE, True)
        return Error.SUCCESS, 0

    def _fence_code(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        """Stores to code are seen by all harts as they happen."""
        known = self._chosen(arguments[0], arguments[1]) is not None
        return Error.SUCCESS if known else Error.INVALID_PARAM, 0

    def _fence_addresses(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        chosen = self._chosen(arguments[0], arguments[1])
        if chosen is None:
            return Error.INVALID_PARAM, 0
        with self._machine.board.memory.changing():
            for other in chosen:
                other.cpu.flush_tlb()
        return Error.SUCCESS, 0

    # Harts (chapter 9) ----------------------------------------------------------------------------------

    def _hart(self, number: int) -> Hart | None:
        harts = self._machine.harts
        return harts[number] if number < len(harts) else None

    def _start_hart(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        other = self._hart(arguments[0])
        if other is None:
            return Error.INVALID_PARAM, 0
        with self._machine.lock:
            if other.state is not HartState.STOPPED:
                return Error.ALREADY_AVAILABLE, 0
            if not self._is_executable(arguments[1]):
                return Error.INVALID_ADDRESS, 0
            other.request_start(arguments[1], arguments[2])
        return Error.SUCCESS, 0

    def _stop_hart(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        with self._machine.lock:
            hart.state = HartState.STOPPED
        return Error.SUCCESS, 0

    def _hart_status(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        other = self._hart(arguments[0])
        return (Error.INVALID_PARAM, 0) if other is None else (Error.SUCCESS, int(other.state))

    def _is_executable(self, address: int) -> bool:
        """Whether S-mode can begin at a physical address."""
        region = self._machine.board.memory.mapping_at(address)
        is_memory = region is not None and region.bank is not None
        return is_memory and address not in HIDDEN and address % 2 == 0

    def _suspend_hart(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        """Both kinds are a WFI in the firmware."""
        kind = arguments[0] & _HALF_WORD
        if kind & ~_NON_RETENTIVE:
            is_platform_s = kind & ~_NON_RETENTIVE >= _FIRST_PLATFORM_SUSPEND
            return Error.NOT_SUPPORTED if is_platform_s else Error.INVALID_PARAM, 0
        if kind == _NON_RETENTIVE and not self._is_executable(arguments[1]):
            return Error.INVALID_ADDRESS, 0
        with self._machine.lock:
            hart.suspend()
        return Error.SUCCESS, 0

    def _resume(self, hart: Hart) -> None:
        """An interrupt has come to a hart that was suspended."""
        x = hart.x
        with self._machine.lock:
            hart.state = HartState.STARTED
            if x[_A0] & _HALF_WORD == _NON_RETENTIVE:
                hart.resume_at(x[_A1], x[_A2])
            else:
                x[_A0], x[_A1] = Error.SUCCESS, 0

    # The machine (chapters 10 and 12) -------------------------------------------------------------------

    def _reset_system(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        kind, cause = arguments[0] & _HALF_WORD, arguments[1] & _HALF_WORD
        if kind > _MOST_RESET_TYPE or cause > _FAILED:
            return Error.INVALID_PARAM, 0
        reason = Reason.RESET if kind else Reason.FAILURE if cause == _FAILED else Reason.POWEROFF
        self._machine.end(Ending(reason, code=1 if reason is Reason.FAILURE else 0))
        return Error.SUCCESS, 0

    def _print(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        length, address = min(arguments[0], _MOST_PRINTED), arguments[1] | arguments[2] << 64
        try:
            data = bytes(self._machine.board.memory.view(address, length))
        except GuestFault:
            return Error.INVALID_PARAM, 0
        if address in HIDDEN:
            return Error.INVALID_PARAM, 0
        self._machine.console.output(data)
        return Error.SUCCESS, length

    def _read_console(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        memory, address = self._machine.board.memory, arguments[1] | arguments[2] << 64
        length = min(arguments[0], _MOST_READ)
        try:
            view = memory.view(address, length, writable=True)
        except GuestFault:
            return Error.INVALID_PARAM, 0
        typed = self._typed(length)
        view[: len(typed)] = typed
        memory.wrote(address, len(typed))
        return Error.SUCCESS, len(typed)

    def _typed(self, most: int) -> bytes:
        """What has been typed, taken from the UART."""
        uart, typed = self._machine.board.uart, bytearray()
        with self._machine.lock:
            while len(typed) < most and uart.read(Register.LSR, 1) & LineStatus.DATA_READY:
                typed.append(uart.read(Register.RBR_THR_DLL, 1))
        return bytes(typed)

    def _print_byte(self, hart: Hart, arguments: Sequence[int]) -> Answer:
        self._machine.console.output(bytes([arguments[0] & 0xFF]))
        return Error.SUCCESS, 0


_FUNCTIONS: dict[tuple[int, int], Function] = {
    (Extension.BASE, 0): Sbi._version,
    (Extension.BASE, 1): Sbi._implementation,
    (Extension.BASE, 2): Sbi._implementation_version,
    (Extension.BASE, 3): Sbi._probe,
    (Extension.BASE, 4): Sbi._nothing,
    (Extension.BASE, 5): Sbi._nothing,
    (Extension.BASE, 6): Sbi._nothing,
    (Extension.IPI, 0): Sbi._send_interrupt,
    (Extension.RFENCE, 0): Sbi._fence_code,
    (Extension.RFENCE, 1): Sbi._fence_addresses,
    (Extension.RFENCE, 2): Sbi._fence_addresses,
    (Extension.HSM, 0): Sbi._start_hart,
    (Extension.HSM, 1): Sbi._stop_hart,
    (Extension.HSM, 2): Sbi._hart_status,
    (Extension.HSM, 3): Sbi._suspend_hart,
    (Extension.SRST, 0): Sbi._reset_system,
    (Extension.DBCN, 0): Sbi._print,
    (Extension.DBCN, 1): Sbi._read_console,
    (Extension.DBCN, 2): Sbi._print_byte,
}
"""By extension and function."""
_LEGACY_BETWEEN_HARTS: dict[int, Function] = {
    Extension.LEGACY_SEND_IPI: Sbi._send_interrupt,
    Extension.LEGACY_REMOTE_FENCE_I: Sbi._fence_code,
    Extension.LEGACY_REMOTE_SFENCE_VMA: Sbi._fence_addresses,
    Extension.LEGACY_REMOTE_SFENCE_VMA_ASID: Sbi._fence_addresses,
}
_EXTENSIONS = frozenset(Extension)
