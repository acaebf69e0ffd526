"""A machine that runs: a board with its CPUs, firmware and kernel in memory, and time."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING

from anyvirt.boards.riscv_boot_rom import Handover
from anyvirt.boards.virt import VirtBoard
from anyvirt.boards.virt_map import BOOT_ROM, HartInterrupt
from anyvirt.boards.virt_tree import Chosen, HartDescription
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.tiers import Tier, chosen_tier, make_executor
from anyvirt.devices.test_finisher import Finish, Outcome
from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.machines.clock import MachineClock
from anyvirt.machines.console import Console
from anyvirt.machines.counted import CountedRun
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.firmware import GATE, Gate, firmware_rom
from anyvirt.machines.hart import Hart
from anyvirt.machines.loading import load_firmware, load_initrd, load_kernel
from anyvirt.machines.memory_windows import PhysicalMemory
from anyvirt.machines.real_time import RealTimeRun
from anyvirt.machines.sbi import Sbi
from anyvirt.quantities import parse_size

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from anyvirt.cpu.executor import Stop
    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.devices.clock import Alarm
    from anyvirt.guest import Network, Published
    from anyvirt.machines.loading import Loaded
    from anyvirt.network.link import Link
    from anyvirt.network.vsock import VsockHost

BOARDS = ("virt",)
ISA = "riscv64_system"
_SEED_SIZE = 32
_EPOCH = 1_700_000_000 * 10**9
"""What the real-time clock begins at in machines with a seed: November 2023."""
HART = HartDescription(
    (
        "i", "m", "a", "f", "d", "c", "zicbom", "zicboz", "zicntr", "zicond", "zicsr", "zifencei",
        "zihintpause", "zawrs", "zba", "zbb", "zbs", "sstc", "svadu", "svinval", "svpbmt",
    ),
    mmu="sv57",
    cache_block=64,
)  # fmt: skip
"""What kernels are told about each hart, as the instruction set has it; looking there would take long."""
_OUTCOMES = {
    Outcome.PASS: Reason.POWEROFF,
    Outcome.RESET: Reason.RESET,
    Outcome.FAIL: Reason.FAILURE,
}


class Machine:
    """A whole machine, run by `run`. Between runs all of it stands still and can be looked at and changed."""

    def __init__(
        self,
        *,
        board: str = "virt",
        kernel: str | Path | None = None,
        initrd: str | Path | None = None,
        append: str = "",
        memory: str | int = "256M",
        cpus: int = 1,
        firmware: str | Path | None = None,
        tier: Tier | str | None = None,
        seed: int | None = None,
        network: Network | str | None = None,
        publish: Sequence[Published | str] = (),
        vsock: bool | str | Path = False,
        attach: Callable[[VirtBoard], object] | None = None,
    ) -> None:
        """Make a machine that is ready to run.

        `kernel` is a RISC-V Image or an ELF file, started in S-mode; `append` is its command line. Our own
        firmware answers its calls, unless `firmware` names another, such as OpenSBI's fw_dynamic or fw_jump,
        or any program for M-mode. `memory` is in bytes or like "512M". `tier` says how code is executed
        (`anyvirt.cpu.tiers`). With a `seed`, the date and what the kernel is given as randomness are the same
        in each run. `network` is what the machine's virtio-net card is joined with: `"user"`, `"tap"` or
        `"tap:NAME"`; `publish` lets ports of the host lead to it (`"[ADDRESS:]HOST:GUEST[/udp]"`).
        `vsock` gives it virtual sockets, reached by `Machine.vsock` and by a Unix socket at a path if one is
        given. `attach` is called with the board, to put further devices on it. Raises UsageError.
        """
        if board not in BOARDS:
            raise UsageError(f"there is no board {board!r}: the boards are {', '.join(BOARDS)}")
        if kernel is None and firmware is None:
            raise UsageError("a machine needs something to run: name a kernel or firmware")
        if initrd is not None and kernel is None:
            raise UsageError("an initial file system is for a kernel: name one")
        self._kernel, self._initrd, self._append, self._firmware = kernel, initrd, append, firmware
        self._seed = seed
        self._run: RealTimeRun | CountedRun | None = None
        self._ended: Ending | None = None
        self._untold: list[Ending] = []
        """Breakpoints that harts have reached when another hart had ended the run: later runs tell them."""
        self.clock = MachineClock()
        """The machine's time, which stands between runs."""
        self.console = Console(self)
        self.board = self._make_board(parse_size(memory) if isinstance(memory, str) else memory, cpus)
        self.console.connect(self.board.uart)
        self._link: Link | None = None
        if network is not None or publish:
            from anyvirt.machines.network import attach_network

            self._link = attach_network(self.board, network or "none", publish)
        self._vsock: VsockHost | None = None
        if vsock is not False:
            from anyvirt.machines.network import attach_vsock

            self._vsock = attach_vsock(self.board, None if vsock is True else vsock)
        if attach is not None:
            attach(self.board)
        self._tier = chosen_tier() if tier is None else tier
        self._timers: dict[int, Alarm] = {}
        self.harts = self._make_harts()
        """The CPUs."""
        self._sbi = Sbi(self)
        if firmware is None:
            gate = Gate(call=self._take_call, acknowledge=self._lower_software_interrupt)
            self.board.memory.add_mmio(*GATE, gate, name="firmware")
            self.board.memory.add_rom(BOOT_ROM.start, firmware_rom(), name="firmware")
        try:
            self._start()
        except BaseException:
            self._let_go()
            raise

    # Making ---------------------------------------------------------------------------------------------

    def _make_board(self, ram_size: int, cpus: int) -> VirtBoard:
        return VirtBoard(
            MachineMemory(),
            self.clock,
            harts=cpus,
            ram_size=ram_size,
            console=self.console.output,
            on_finish=self._finish,
            epoch=_EPOCH if self._seed is not None else time.time_ns(),
            hart=HART,
        )

    def _make_harts(self) -> tuple[Hart, ...]:
        return tuple(Hart(number, self._make_cpu(number), self.clock) for number in range(self.board.harts))

    def _make_cpu(self, number: int) -> Interpreter:
        try:
            cpu = make_executor(ISA, self.board.memory, tier=self._tier)
        except ValueError:
            raise UsageError(f"there is no tier {self._tier!r}: the tiers are {', '.join(Tier)}") from None
        assert cpu.system is not None
        cpu.system.set_control("mhartid", number)
        cpu.system.on_timer = self._timer_of(number)
        for interrupt, wire in self.board.interrupts[number].items():
            wire.connect(_line(cpu.system.set_interrupt, interrupt))
        return cpu

    def _start(self) -> None:
        """Load what the machine begins with, and let its harts stand where they begin."""
        memory = self.board.memory
        firmware = load_firmware(memory, self._firmware) if self._firmware is not None else None
        kernel = load_kernel(memory, self._kernel) if self._kernel is not None else None
        tree = self._load_tree(kernel)
        if firmware is None:
            assert kernel is not None
            self.harts[0].request_start(kernel.entry, tree)
            self.harts[0].start_if_wanted()
            return
        handover = Handover(firmware.entry, tree, kernel.entry if kernel is not None else 0)
        start = self.board.install_boot_rom(handover)
        for hart in self.harts:
            hart.begin(start)

    def _load_tree(self, kernel: Loaded | None) -> int:
        """The initial file system and the device tree; the address of the tree."""
        tree = self.board.load_device_tree()
        limit = tree - (1 << 20)
        initrd = None
        if self._initrd is not None and kernel is not None:
            initrd = load_initrd(self.board.memory, self._initrd, kernel=kernel, limit=limit)
        chosen = Chosen(self._append, initrd, self._random_seed())
        return self.board.load_device_tree(chosen)

    def _random_seed(self) -> bytes:
        return (
            os.urandom(_SEED_SIZE) if self._seed is None else random.Random(self._seed).randbytes(_SEED_SIZE)
        )

    # Running --------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        seconds: float | None = None,
        instructions: int | None = None,
        until: Callable[[], object] | None = None,
    ) -> Ending:
        """Run until something ends the run, and say what.

        In real time, with a thread for each CPU, for `seconds` if given. With `instructions` it is a counted
        run: exactly so many are executed by all CPUs together, in this thread, and time is instructions, so
        that the same run shows the same. The run also ends when `until`, looked at now and then, is true.
        Raises what a device or hook raises.
        """
        if seconds is not None and instructions is not None:
            raise UsageError("a run is limited by seconds or by instructions, not by both")
        if self._run is not None:
            raise UsageError("the machine is running already")
        if self._untold:
            return self._untold.pop(0)
        if self._ended is not None:
            return self._ended
        if instructions is not None:
            counted = self._run = CountedRun(self)
            return self._finishing(lambda: counted.run(instructions, until))
        real = self._run = RealTimeRun(self)
        return self._finishing(lambda: real.run(seconds, until))

    def _finishing(self, run: Callable[[], Ending]) -> Ending:
        try:
            return run()
        finally:
            self._run = None
            for hart in self.harts:
                hart.cpu.forget_interrupt()
            with self.lock:
                self.board.uart.flush()

    def stop(self) -> None:
        """Let a run end soon. Any thread may call it; without a run it does nothing."""
        self.end(Ending(Reason.STOPPED))

    def end(self, ending: Ending) -> None:
        """Let a run end for a reason: for what belongs to the machine."""
        if ending.is_final and self._ended is None:
            self._ended = ending
        is_told = self._run is not None and self._run.end(ending)
        if ending.reason is Reason.HOOK and not is_told:
            self._untold.append(ending)

    def notice(self) -> None:
        """Something has happened that whoever runs the machine may want to look at."""
        if self._run is not None:
            self._run.notice()

    def reset(self) -> None:
        """Begin anew: devices and CPUs as after power-on, kernel and firmware as they are on disk.

        What else is in RAM stays. Hooks and breakpoints are gone with the CPUs they were set on.
        """
        if self._run is not None:
            raise UsageError("a machine that is running cannot be reset")
        self.board.reset()
        self.harts = self._make_harts()
        self._ended = None
        self._untold.clear()
        self._start()

    @property
    def is_running(self) -> bool:
        """Whether somebody is in `run`."""
        return self._run is not None

    @property
    def memory(self) -> PhysicalMemory:
        """Physical memory: `machine.memory[address : address + length]`."""
        return PhysicalMemory(self.board.memory)

    @property
    def vsock(self) -> VsockHost:
        """The machine's virtual sockets: `connect` to the guest, `listen` for it. Raises UsageError."""
        if self._vsock is None:
            raise UsageError("this machine has no virtual sockets: make it with vsock=True")
        return self._vsock

    @property
    def lock(self) -> threading.RLock:
        """Held by whoever calls a device."""
        return self.board.lock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._let_go()

    def _let_go(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._vsock is not None:
            self._vsock.close()

    # What harts come back with --------------------------------------------------------------------------

    def serve(self, hart: Hart, stop: Stop) -> None:
        """Do what a hart has stopped for; it is called by the thread that runs it."""
        if hart.has_called:
            hart.has_called = False
            self._sbi.answer(hart)
        if stop.reason is StopReason.HOOK:
            self.end(Ending(Reason.HOOK, hart=hart.number, stop=stop))
        elif stop.reason not in (StopReason.INTERRUPTED, StopReason.IDLE, StopReason.BUDGET):
            raise AnyvirtError(f"hart {hart.number} cannot go on at {stop.pc:#x}: {stop.reason.name}")

    def _take_call(self, number: int) -> None:
        hart = self.harts[number]
        hart.has_called = True
        hart.cpu.interrupt()

    def _lower_software_interrupt(self, number: int) -> None:
        self.harts[number].system.set_interrupt(HartInterrupt.MACHINE_SOFTWARE, False)

    def _finish(self, finish: Finish) -> None:
        self.end(Ending(_OUTCOMES[finish.outcome], code=finish.code))

    def _timer_of(self, number: int) -> Callable[[int | None], None]:
        """What is called with the time at which a hart's timer is due."""

        def wait_for(when: int | None) -> None:
            before = self._timers.pop(number, None)
            if before is not None:
                before.cancel()
            if when is not None:
                self._timers[number] = self.clock.call_at(when, ring)

        def ring() -> None:
            self.harts[number].system.timer_due(self.clock.now())

        return wait_for


def _line(set_interrupt: Callable[[int, bool], None], number: int) -> Callable[[bool], None]:
    """A listener of a wire."""
    return lambda level: set_interrupt(number, level)
