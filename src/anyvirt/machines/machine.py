"""A machine that runs: a board with its CPUs, firmware and kernel in memory, and time."""

from __future__ import annotations

import os
import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
from anyvirt.machines.configuration import Configuration
from anyvirt.machines.console import Console
from anyvirt.machines.counted import CountedRun, Goal
from anyvirt.machines.disks.board import put_disks
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.firmware import GATE, Gate, firmware_rom
from anyvirt.machines.hart import Hart
from anyvirt.machines.inputs import Inputs, Position
from anyvirt.machines.loading import load_firmware, load_initrd, load_kernel
from anyvirt.machines.memory_windows import PhysicalMemory
from anyvirt.machines.past import Past
from anyvirt.machines.real_time import RealTimeRun
from anyvirt.machines.sbi import Sbi
from anyvirt.machines.standstill import ASIDE, Standstill
from anyvirt.machines.state import load_machine
from anyvirt.quantities import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from anyvirt.cpu.executor import Stop
    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.devices.clock import Alarm
    from anyvirt.guest import Network, Published
    from anyvirt.machines.counted import Turn
    from anyvirt.machines.history import History
    from anyvirt.machines.loading import Loaded
    from anyvirt.machines.origin import Origin
    from anyvirt.machines.recording import Recording
    from anyvirt.machines.seat import Seat
    from anyvirt.machines.seat.display import Display
    from anyvirt.machines.seat.keyboard import Keyboard
    from anyvirt.machines.seat.picture import Picture
    from anyvirt.machines.seat.pointer import Pointer
    from anyvirt.network.link import Link
    from anyvirt.network.vsock import VsockHost

T = TypeVar("T")
EVERY = 20_000_000
"""Instructions between states that a machine can be gone on from, in recordings and histories."""
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

    _link: Link | None = None
    """The cable of its network card."""
    _vsock: VsockHost | None = None
    _seat: Seat | None = None

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
        display: tuple[int, int] | str | None = None,
        attach: Callable[[VirtBoard], object] | None = None,
    ) -> None:
        """Make a machine that is ready to run.

        `kernel` is a RISC-V Image or an ELF file, started in S-mode; `append` is its command line. Our own
        firmware answers its calls, unless `firmware` names another, such as OpenSBI's fw_dynamic or fw_jump,
        or any program for M-mode; it may start a `kernel` without a header, such as U-Boot. `memory` is in
        bytes or like "512M". `tier` says how code is executed (`anyvirt.cpu.tiers`). With a `seed`, the date
        and what the kernel is given as randomness are the same in each run. `network` is what the machine's
        virtio-net card is joined with: `"user"`, `"tap"` or `"tap:NAME"`; `publish` lets ports of the host
        lead to it (`"[ADDRESS:]HOST:GUEST[/udp]"`). `vsock` gives it virtual sockets, reached by
        `Machine.vsock` and by a Unix socket at a path if one is given. `display` gives it a display of that
        size in pixels, `(1024, 768)` or `"1024x768"`, a keyboard and a pointer. `attach` is called with the
        board, to put further devices on it. Raises UsageError.
        """
        self._check_board(board)
        if kernel is None and firmware is None:
            raise UsageError("a machine needs something to run: name a kernel or firmware")
        if initrd is not None and kernel is None:
            raise UsageError("an initial file system is for a kernel: name one")
        configuration = Configuration(
            board=board,
            memory=parse_size(memory) if isinstance(memory, str) else memory,
            cpus=cpus,
            kernel=None if kernel is None else Path(kernel),
            initrd=None if initrd is None else Path(initrd),
            append=append,
            firmware=None if firmware is None else Path(firmware),
            seed=seed,
            display=self._resolution(display),
        )

        def attach_all(board: VirtBoard) -> None:
            self._join_host(board, network, publish, vsock)
            if attach is not None:
                attach(board)

        try:
            self._assemble(configuration, tier, attach_all)
            self._start()
        except BaseException:
            self._let_go()
            raise

    # Making ---------------------------------------------------------------------------------------------

    def _assemble(
        self,
        configuration: Configuration,
        tier: Tier | str | None,
        attach: Callable[[VirtBoard], object] | None,
    ) -> None:
        """Put everything together; RAM is empty, and the harts have nothing to execute."""
        self._check_board(configuration.board)
        self.configuration = configuration
        """What it was made of."""
        self._run: RealTimeRun | CountedRun | None = None
        self._standstill = Standstill()
        self.ended: Ending | None = None
        """How the machine has ended, if it has: it can be reset."""
        self._ending_lock = threading.RLock()
        self.untold: list[Ending] = []
        """Breakpoints that harts have reached when another hart had ended the run: later runs tell them."""
        self._late: Ending | None = None
        """What has ended a run that was held."""
        self.clock = MachineClock()
        """The machine's time, which stands between runs."""
        self.inputs = Inputs(self)
        """What comes from outside: `push` and `pull` are for devices of the user's."""
        self._past = Past(self)
        self.console = Console(self)
        self.board = self._make_board()
        self.console.connect(self.board.uart)
        if configuration.display is not None:
            from anyvirt.machines.seat import furnish

            self._seat = furnish(self, configuration.display)
        if attach is not None:
            attach(self.board)
        self._tier = self._known_tier(chosen_tier() if tier is None else tier)
        self._timers: dict[int, Alarm] = {}
        self.harts = self._make_harts()
        """The CPUs."""
        self.turn: Turn | None = None
        """The turn of a counted run that was under way when the last run ended."""
        self.leaps = 0
        """How often time has leapt in counted runs."""
        self._sbi = Sbi(self)
        if configuration.firmware is None:
            gate = Gate(call=self._take_call, acknowledge=self._lower_software_interrupt)
            self.board.memory.add_mmio(*GATE, gate, name="firmware")
            self.board.memory.add_rom(BOOT_ROM.start, firmware_rom(), name="firmware")

    @staticmethod
    def _resolution(display: tuple[int, int] | str | None) -> tuple[int, int] | None:
        if display is None:
            return None
        from anyvirt.machines.seat.display import parse_resolution

        return parse_resolution(display)

    def _join_host(
        self,
        board: VirtBoard,
        network: Network | str | None,
        publish: Sequence[Published | str],
        vsock: bool | str | Path,
    ) -> None:
        """Put on the board what joins it with the host."""
        if network is None and not publish and vsock is False:
            return
        from anyvirt.machines.network import attach_network, attach_vsock

        if network is not None or publish:
            self._link = attach_network(board, network or "none", publish)
        if vsock is not False:
            self._vsock = attach_vsock(board, None if vsock is True else vsock)

    @classmethod
    def standing(
        cls,
        origin: Origin,
        tier: Tier | str | None,
        attach: Callable[[VirtBoard], object] | None,
    ) -> Self:
        """A machine that stands where another one stood. Raises UsageError and StateError."""
        machine = cls.__new__(cls)
        machine._assemble(origin.configuration, tier, attach)
        if origin.configuration.firmware is not None:
            machine.board.install_boot_rom(Handover(0, 0))
        # Devices look at the memory and at their disks when they are loaded.
        machine.board.memory.become(origin.memory)
        put_disks(machine.board, origin.disks)
        load_machine(machine, origin.state)
        return machine

    def _make_board(self) -> VirtBoard:
        return VirtBoard(
            MachineMemory(),
            self.clock,
            harts=self.configuration.cpus,
            ram_size=self.configuration.memory,
            console=self.console.output,
            on_finish=self._finish,
            epoch=_EPOCH if self.configuration.seed is not None else time.time_ns(),
            hart=HART,
        )

    @staticmethod
    def _check_board(name: str) -> None:
        if name not in BOARDS:
            raise UsageError(f"there is no board {name!r}: the boards are {', '.join(BOARDS)}")

    @staticmethod
    def _known_tier(name: Tier | str) -> Tier:
        try:
            return Tier(name)
        except ValueError:
            raise UsageError(f"there is no tier {name!r}: the tiers are {', '.join(Tier)}") from None

    def _make_harts(self) -> tuple[Hart, ...]:
        return tuple(Hart(number, self._make_cpu(number), self.clock) for number in range(self.board.harts))

    def _make_cpu(self, number: int) -> Interpreter:
        cpu = make_executor(ISA, self.board.memory, tier=self._tier)
        assert cpu.system is not None
        cpu.system.set_control("mhartid", number)
        self._connect(number, cpu)
        return cpu

    def _connect(self, number: int, cpu: Interpreter) -> None:
        """Let interrupts and time reach a hart's CPU."""
        assert cpu.system is not None
        cpu.system.on_timer = self._timer_of(number)
        for interrupt, wire in self.board.interrupts[number].items():
            wire.connect(partial(cpu.system.set_interrupt, interrupt))

    def _start(self) -> None:
        """Load what the machine begins with, and let its harts stand where they begin."""
        memory = self.board.memory
        files = self.configuration
        firmware = load_firmware(memory, files.firmware) if files.firmware is not None else None
        kernel = None
        if files.kernel is not None:
            kernel = load_kernel(memory, files.kernel, may_be_raw=firmware is not None)
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
        files, initrd = self.configuration, None
        if files.initrd is not None and kernel is not None:
            initrd = load_initrd(self.board.memory, files.initrd, kernel=kernel, limit=limit)
        return self.board.load_device_tree(Chosen(files.append, initrd, self._random_seed()))

    def _random_seed(self) -> bytes:
        seed = self.configuration.seed
        return os.urandom(_SEED_SIZE) if seed is None else random.Random(seed).randbytes(_SEED_SIZE)

    # Running --------------------------------------------------------------------------------------------

    def run(
        self,
        *,
        seconds: float | None = None,
        instructions: int | None = None,
        until: Callable[[], object] | None = None,
        harts: Sequence[Hart] | None = None,
    ) -> Ending:
        """Run until something ends the run, and say what.

        In real time, with a thread for each CPU, for `seconds` if given. With `instructions` it is a counted
        run: exactly so many are executed by all CPUs together, in this thread, and time is instructions, so
        that the same run shows the same. The run also ends when `until`, looked at now and then, is true.
        With `harts` the other CPUs stand still. Raises what a device or hook raises.
        """
        if seconds is not None and instructions is not None:
            raise UsageError("a run is limited by seconds or by instructions, not by both")
        if instructions is not None and instructions < 0:
            raise UsageError("a machine cannot execute fewer than no instructions")
        if instructions is None:
            self.inputs.require_counting()
        self._check_choice(harts)
        if instructions is not None:
            count = instructions
            return self._run_all(
                lambda left: CountedRun(self, count if left is None else left, harts=harts), until
            )
        deadline = None if seconds is None else time.monotonic() + seconds
        return self._run_all(lambda _: RealTimeRun(self, deadline, harts=harts), until)

    def step(
        self, hart: Hart, *, others: Sequence[Hart] = (), until: Callable[[], object] | None = None
    ) -> Ending:
        """Execute one instruction of a CPU; each of `others` executes as many. It is a counted run.

        The reason is LIMIT when that is done. A hart that waits for an interrupt waits; meanwhile `others`
        run, or time leaps. Taking an exception or an interrupt counts as an instruction. When the machine is
        recorded, replayed or has a history, `others` have to be all, and they execute what they do in any
        counted run, which may be more or nothing. Raises what `run` raises.
        """
        goal = Goal(hart, hart.cpu.instructions + 1)
        harts = (hart, *others)
        self._check_choice(harts)
        return self._run_all(lambda _: CountedRun(self, goal=goal, harts=harts), until)

    def _check_choice(self, harts: Sequence[Hart] | None) -> None:
        """Raises UsageError for harts that are run without others where what all of them do is kept."""
        if harts is not None and len(set(harts)) < len(self.harts):
            self.inputs.require_all_harts()

    def serve_gdb(
        self, address: str = ":1234", *, on_listening: Callable[[str], object] | None = None
    ) -> None:
        """Wait for gdb, and let it have the machine until it leaves or the machine ends.

        Each hart is one of its threads. The address is `:PORT` (of this host only), `HOST:PORT` or
        `unix:PATH`; `on_listening` is called with the real one. When gdb detaches, the machine stands where
        it is; when it kills, the machine is turned off. Raises UsageError.
        """
        from anyvirt.machines.debugging.gdb import serve_gdb

        serve_gdb(self, address, on_listening=on_listening)

    def _run_all(
        self, make: Callable[[int | None], RealTimeRun | CountedRun], until: Callable[[], object] | None
    ) -> Ending:
        """A run, held whenever somebody wants that: `make` is told how many instructions are left of it."""
        left = None
        with self._standstill.running():
            while True:
                run = make(left)
                ending = self._begin(run) or self._finish_run(run, until)
                if ending is not ASIDE:
                    return ending
                left = run.left
                self._standstill.serve()

    def _begin(self, run: RealTimeRun | CountedRun) -> Ending | None:
        """Let a run be the one that others end, unless there is nothing to run or an ending to be told."""
        with self._ending_lock:
            if self.untold:
                return self.untold.pop(0)
            if self.ended is not None:
                return self.ended
            late, self._late = self._late, None
            if late is None:
                self._run = run
            return late

    def _finish_run(self, run: RealTimeRun | CountedRun, until: Callable[[], object] | None) -> Ending:
        try:
            run.run(until)
        finally:
            with self._ending_lock:
                self._run = None
            for hart in self.harts:
                hart.cpu.forget_interrupt()
            self.inputs.arrive_late()
            with self.lock:
                self.board.uart.flush()
        assert run.ending is not None
        return run.ending

    def while_standing(self, work: Callable[[], T]) -> T:
        """Do something when nothing runs: a run by another thread is held meanwhile.

        Raises UsageError in a thread of the run's own, such as a hook's.
        """
        run = self._run
        if run is not None and run.is_own_thread(threading.get_ident()):
            raise UsageError("a machine cannot do this to itself while it runs: do it between runs")
        return self._standstill.do(work, lambda: self.end(ASIDE))

    def stop(self) -> None:
        """Let a run end soon. Any thread may call it; without a run it does nothing."""
        self.end(Ending(Reason.STOPPED))

    def end(self, ending: Ending) -> None:
        """Let a run end for a reason: for what belongs to the machine."""
        with self._ending_lock:
            if ending.is_final and self.ended is None:
                self.ended = ending
            is_told = self._run is not None and self._run.end(ending)
            if is_told or ending is ASIDE:
                return
            if ending.reason is Reason.HOOK:
                self.untold.append(ending)
            elif self._standstill.is_running:
                self._late = ending

    def notice(self) -> None:
        """Something has happened that whoever runs the machine may want to look at."""
        run = self._run
        if run is not None:
            run.notice()

    @property
    def position(self) -> Position:
        """Where the machine is in its counted execution."""
        return Position(sum(hart.cpu.instructions for hart in self.harts), self.leaps)

    @property
    def counted_run(self) -> CountedRun | None:
        """The counted run that is under way."""
        return self._run if isinstance(self._run, CountedRun) else None

    def end_turn(self) -> None:
        """Let the turn of a counted run, if one is under way, be over: time is where it has come to."""
        longest = max(hart.progress for hart in self.harts)
        for hart in self.harts:
            hart.progress = 0
        self.turn = None
        with self.lock:
            self.clock.advance_to(self.clock.now() + longest)

    def reset(self) -> None:
        """Begin anew: devices and CPUs as after power-on, kernel and firmware as they are on disk.

        What else is in RAM stays. Hooks and breakpoints are gone with the CPUs they were set on.
        """
        if self.is_running:
            raise UsageError("a machine that is running cannot be reset")
        if self.inputs.listeners:
            raise UsageError("a machine that is recorded cannot be reset: close the recording before")
        self.board.reset()
        self.harts = self._make_harts()
        self.inputs.forget()
        self._past.clear()
        self.ended, self.turn = None, None
        self.untold.clear()
        self._start()

    # States ---------------------------------------------------------------------------------------------

    def snapshot(self, directory: str | Path, *, compress: bool = False) -> None:
        """Write all that the machine is to a directory that is not there yet, or is empty.

        `compress` makes it small, and `restore` slower. Images that disks write to stay as they are from then
        on: the disks go on in overlays beside them. What is behind other devices of the user's is not in it;
        hooks and breakpoints are not the guest's. A run by another thread is held meanwhile. Raises
        UsageError; nothing is left behind then.
        """
        from anyvirt.machines.standing import write_machine

        self.while_standing(lambda: write_machine(self, Path(directory), compress=compress))

    @classmethod
    def restore(
        cls,
        directory: str | Path,
        *,
        tier: Tier | str | None = None,
        attach: Callable[[VirtBoard], object] | None = None,
    ) -> Self:
        """A machine that stands where the one stood that `snapshot` was called of, in any tier.

        `attach` puts the same devices on the board as that of the other machine; disks come with the
        snapshot, and what the machine writes to them is gone with it. The files of the snapshot stay in use
        as long as the machine is there, and nobody may change them; they may be removed. Raises
        SnapshotError for a snapshot that is not what it was, and UsageError; there is no machine then.
        """
        from anyvirt.machines.standing import read_machine

        return read_machine(cls, Path(directory), None if tier is None else cls._known_tier(tier), attach)

    def clone(
        self, *, tier: Tier | str | None = None, attach: Callable[[VirtBoard], object] | None = None
    ) -> Self:
        """A machine that stands where this one does, and from then on has nothing to do with it.

        Both share the memory that neither writes to. `tier` is this one's if it is not given. Devices beyond
        those that every board has belong to the host: `attach` has to give the clone its own of the same
        kind; what is on disks is copied, and lasts as long as the clone. A run by another thread is held for
        a moment. Raises UsageError.
        """
        from anyvirt.machines.standing import copy_machine

        return copy_machine(self, tier, attach)

    # The past -------------------------------------------------------------------------------------------

    def record(self, directory: str | Path, *, every: int = EVERY) -> Recording:
        """Record all that comes from outside, in counted runs, to a directory that is not there yet.

        What is returned ends the recording when it is closed, or used as a context manager. `Machine.replay`
        does the same again; it can go back by steps of `every` instructions. What is recorded is what is
        typed and what comes by `inputs`, not what Python changes in memory and registers. Raises UsageError.
        """
        return self._past.record(Path(directory), every=every)

    @classmethod
    def replay(
        cls,
        directory: str | Path,
        *,
        tier: Tier | str | None = None,
        attach: Callable[[VirtBoard], object] | None = None,
    ) -> Self:
        """A machine that stands where a recording begins, and to which the same comes in counted runs.

        It may be run in any pieces and in any tier; `replay_to_end` runs the rest. When something else comes,
        it goes its own way from there. Raises SnapshotError and UsageError.
        """
        from anyvirt.machines.recording import START, read_recording

        replay = read_recording(Path(directory))
        machine = cls.restore(Path(directory) / START, tier=tier, attach=attach)
        machine._past.repeat(replay)
        return machine

    def replay_to_end(self) -> Ending:
        """Run to where the recording ends, or until a breakpoint or something else ends the run before.

        Raises ReplayError if the state there is not the recorded one, and UsageError without a recording.
        """
        return self._past.replay_to_end()

    def keep_history(self, *, every: int = EVERY, most: int = 64) -> None:
        """From now on let it be possible to go back, in counted runs.

        A state is kept each `every` instructions, and costs the memory that was written meanwhile; of more
        than `most` those that are long ago become fewer. Going back takes the time of up to so many
        instructions. Raises UsageError.
        """
        self._past.keep_history(every=every, most=most)

    def forget_history(self) -> None:
        """Keep no history any more."""
        self._past.forget_history()

    @property
    def history(self) -> History | None:
        """The states that are kept."""
        return self._past.history

    def reverse_step(self, count: int = 1, *, hart: Hart | None = None) -> Ending:
        """Go back by so many instructions, of all harts together or of one, or to where the history begins.

        The reason is LIMIT or BEGINNING. Runs go on from there in the same way as before, until something
        else comes from outside. Raises UsageError without a history.
        """
        return self._past.step_back(count, hart)

    def reverse_continue(self, *, until: Callable[[], object] | None = None) -> Ending:
        """Go back to where a breakpoint or watchpoint was last reached, or to where the history begins.

        At a watchpoint it stands in front of the instruction that makes the access. The reason is HOOK or
        BEGINNING. When `until`, looked at now and then, is true, or `stop` is called, the machine stands
        where it was: CONDITION or STOPPED. Raises UsageError without a history.
        """
        return self._past.continue_back(until)

    def require_apart(self, what: str) -> None:
        """Raises UsageError for a machine to which something comes that is not kept."""
        if self._link is not None or self._vsock is not None:
            raise UsageError(
                f"a machine with a network or virtual sockets cannot be {what}: "
                "what comes from there is not kept"
            )

    def run_hart_to(self, hart: Hart, instructions: int) -> Ending:
        """A counted run of all harts until one has executed so many since the machine was made."""
        goal = Goal(hart, instructions)
        return self._run_all(lambda _: CountedRun(self, goal=goal, harts=self.harts), None)

    def run_to(self, position: Position, *, until: Callable[[], object] | None = None) -> Ending:
        """A counted run to a position that is still to come, unless something ends it before."""
        left = max(position.instructions - self.position.instructions, 0)
        return self._run_all(
            lambda rest: CountedRun(self, left if rest is None else rest, leaps=position.leaps), until
        )

    @property
    def tier(self) -> Tier:
        """How code is executed."""
        return self._tier

    def switch(self, tier: Tier | str) -> None:
        """Execute code in another tier from now on, with everything else as it is, hooks and breakpoints too.

        `harts[n].cpu` is another object then. A run by another thread is held for a moment. Raises
        UsageError.
        """
        name = self._known_tier(tier)

        def replace() -> None:
            before, self._tier = self._tier, name
            try:
                cpus = [self._make_cpu(hart.number) for hart in self.harts]
            except BaseException:
                self._tier = before
                for hart in self.harts:
                    self._connect(hart.number, hart.cpu)
                raise
            for hart, cpu in zip(self.harts, cpus, strict=True):
                cpu.load_state(hart.cpu.save_state())
                hart.replace(cpu)

        self.while_standing(replace)

    @property
    def is_running(self) -> bool:
        """Whether somebody is in `run`."""
        return self._standstill.is_running

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
    def display(self) -> Display:
        """What the guest shows. Raises UsageError."""
        return self._taken_seat().display

    @property
    def keyboard(self) -> Keyboard:
        """Typing where the guest reads keys, not on its serial console. Raises UsageError."""
        return self._taken_seat().keyboard

    @property
    def pointer(self) -> Pointer:
        """Pointing at what the display shows. Raises UsageError."""
        return self._taken_seat().pointer

    def screenshot(self, path: str | Path | None = None, *, cursor: bool = False) -> Picture:
        """What the display shows now, and with `path` also a file of it, such as a `.png`.

        `cursor` draws the guest's pointer above it. Raises UsageError, without Pillow if there is a path.
        """
        picture = self.display.picture(cursor=cursor)
        if path is not None:
            picture.save(path)
        return picture

    def _taken_seat(self) -> Seat:
        if self._seat is None:
            raise UsageError("this machine has no display: make it with display=(1024, 768)")
        return self._seat

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
