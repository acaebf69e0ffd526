"""The run loop: what the virtual CPU stops for becomes a system call or a signal."""

from __future__ import annotations

import errno
import signal as names
from typing import TYPE_CHECKING, NoReturn

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.memory import GuestFault
from anyvirt.jit.host_layout import NOT_STARTED
from anyvirt.linux.emulation.signal_types import make_info
from anyvirt.linux.emulation.table import RegistersReplaced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyvirt.cpu.executor import Stop
    from anyvirt.linux.emulation.process import Process
    from anyvirt.linux.emulation.table import SystemCall

_WORD = (1 << 64) - 1
_ILL_ILLOPC, _TRAP_BRKPT = 1, 1
_SEGV_MAPERR, _SEGV_ACCERR = 1, 2
_BUS_ADRALN, _BUS_ADRERR = 1, 2


def run(process: Process, calls: Mapping[int, SystemCall]) -> NoReturn:
    """Run the guest to its end, which is the end of this host process."""
    process.threads.run = lambda: _run_thread(process, calls)
    process.threads.serve()
    raise AssertionError("the first thread of the host has ended")


def _run_thread(process: Process, calls: Mapping[int, SystemCall]) -> NoReturn:
    """Run the calling thread of the guest, until ThreadEnded is raised."""
    while True:
        try:
            _run_image(process, calls)
        except RegistersReplaced:
            continue


def _run_image(process: Process, calls: Mapping[int, SystemCall]) -> NoReturn:
    """The inner loop, for as long as the thread keeps its virtual CPU."""
    cpu, signals = process.cpu, process.signals
    registers = cpu.x
    number_register, result_register = process.abi.number_register, process.abi.result_register
    argument_registers = process.abi.argument_registers
    system_call = StopReason.SYSTEM_CALL
    advance = cpu.run if process.debugger is None else process.debugger.advance
    process.threads.end_if_wanted(process.memory)
    signals.deliver(process)
    while True:
        stop = advance()
        if stop.reason is not system_call:
            _interrupt(process, stop)
            continue
        try:
            call = calls[registers[number_register]]
        except KeyError:
            registers[result_register] = -errno.ENOSYS & _WORD
            cpu.pc = stop.next_pc
            continue
        try:
            result = call.serve(process, registers[argument_registers])
        except GuestFault:
            result = -errno.EFAULT
        except OSError as error:
            result = -(error.errno or errno.EIO)
        if result == NOT_STARTED:
            signals.temporary = None
            signals.deliver(process)
            continue
        if result != -errno.EINTR:
            signals.temporary = None
        elif _is_restarted(process, call):
            continue
        registers[result_register] = result & _WORD
        cpu.pc = stop.next_pc
        if signals.queue or signals.temporary is not None:
            # What arrives from now on interrupts the CPU; what is here already may just have been unblocked.
            signals.deliver(process)


def _is_restarted(process: Process, call: SystemCall) -> bool:
    """Deliver what interrupted a call. Whether the call is then made again."""
    signals = process.signals
    signals.collect()
    restarted = (call.restart or signals.only_woken) and signals.restarts()
    if restarted:
        signals.deliver(process)
    return restarted


def _interrupt(process: Process, stop: Stop) -> None:
    """Serve a stop that is not a system call."""
    if stop.reason == StopReason.INTERRUPTED:
        process.threads.end_if_wanted(process.memory)
        process.signals.deliver(process)
        return
    number, code, address = _fault(process, stop)
    process.signals.force(process, number, make_info(number, code, address))


def _fault(process: Process, stop: Stop) -> tuple[int, int, int]:
    """The signal, its `si_code` and its address for a fault (arch/riscv/kernel/traps.c, mm/fault.c)."""
    if stop.reason == StopReason.BREAKPOINT:
        return names.SIGTRAP, _TRAP_BRKPT, stop.pc
    if stop.reason == StopReason.ILLEGAL_INSTRUCTION:
        return names.SIGILL, _ILL_ILLOPC, stop.pc
    if stop.reason == StopReason.MISALIGNED:
        return names.SIGBUS, _BUS_ADRALN, stop.address
    if stop.bus_error:
        return names.SIGBUS, _BUS_ADRERR, stop.address
    mapped = not process.memory.is_free(stop.address & _WORD >> 12 << 12, 1)
    return names.SIGSEGV, _SEGV_ACCERR if mapped else _SEGV_MAPERR, stop.address
