"""Traces: a line for each instruction that was executed, with what it changed.

    with open("trace.txt", "w") as file, Trace(cpu, file, start=0x10000, end=0x20000):
        cpu.run()

A line has the address, the bytes, the assembly, the registers that changed, and the memory that was accessed:

    0x10004: 23b0a500  sd a0, 0(a1)  [0x20000]8=0x1
    0x10008: 03b68500  ld a3, 8(a1)  a3=0x0->0x2a [0x20008]8->0x2a

`=` is what was stored and `->` what was loaded or what a register became. Tracing steps through the counting
interpreter, so it is slow; what is executed is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.cpu.disassembly import instruction_at
from anyvirt.cpu.hooks import ADDRESS_SPACE
from anyvirt.jit.ahead import instruction_set
from anyvirt.jit.hook_layout import AccessKind

if TYPE_CHECKING:
    from typing import Self

    from anyvirt.cpu.disassembly import Instruction


class Lines(Protocol):
    """What traces are written to: an open text file, or something that takes lines as one does."""

    def write(self, text: str, /) -> int:
        """Take some text."""


@dataclass(frozen=True)
class Registers:
    """The registers of a CPU at one moment, by file, and its other state by name."""

    files: dict[str, list[int]]
    state: dict[str, int]


class Trace:
    """Writes what one CPU executes to a file, from now on until it is closed or has written enough."""

    def __init__(
        self,
        cpu: Any,  # noqa: ANN401 - any executor
        file: Lines,
        *,
        start: int = 0,
        end: int = ADDRESS_SPACE,
        skip: int = 0,
        limit: int | None = None,
    ) -> None:
        """Trace instructions in [start, end), after the next `skip` ones, until `limit` lines are written.

        What is skipped is not stepped through, and behind the last line the CPU runs at full speed. Raises
        ValueError if the CPU is traced already.
        """
        self.lines = 0
        """Lines written so far."""
        self.skip = skip
        """Instructions that are still to be skipped."""
        self._cpu = cpu
        self._file = file
        self._start, self._end, self._limit = start, end, limit
        self._isa = instruction_set(cpu.isa)
        self._names = {name: registers.names for name, registers in self._isa.register_files.items()}
        self._accesses: list[str] = []
        self._hooks = cpu.hooks
        self._hooks.attach_trace(self)
        self._memory_hook = self._hooks.on_memory(self._note_access)

    def close(self) -> None:
        """Trace no longer. The file stays open: it is the caller's."""
        self._memory_hook.remove()
        self._hooks.detach_trace(self)

    def follow(self, cpu: Any) -> None:  # noqa: ANN401 - any executor
        """Go on with another CPU, which takes the place of the one so far."""
        self._cpu = cpu

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # For the hooks --------------------------------------------------------------------------------------

    def before(self) -> tuple[Instruction, Registers]:
        """The instruction to come, and the registers before it."""
        self._accesses.clear()
        return instruction_at(self._cpu, self._cpu.pc), self._registers()

    def after(self, instruction: Instruction, registers: Registers) -> None:
        """Write the line of an instruction that has been executed."""
        if not self._start <= instruction.address < self._end:
            return
        changes = [*self._changes(registers, self._registers()), *self._accesses]
        line = f"{instruction.address:#x}: {instruction.code.hex()}  {instruction.shown}"
        self._file.write("  ".join([line, " ".join(changes)]).rstrip() + "\n")
        self.lines += 1
        if self._limit is not None and self.lines >= self._limit:
            self.close()

    # The inside -----------------------------------------------------------------------------------------

    def _registers(self) -> Registers:
        cpu = self._cpu
        state = {name: cpu.state(name) for name in self._isa.scalars}
        if "f" in self._names and "x" in self._names:
            state["fcsr"] = cpu.fcsr
        return Registers({name: list(cpu.registers(name)) for name in self._names}, state)

    def _changes(self, old: Registers, new: Registers) -> list[str]:
        changes = []
        for file, names in self._names.items():
            if old.files[file] != new.files[file]:
                values = zip(names, old.files[file], new.files[file], strict=True)
                changes += [f"{name}={was:#x}->{now:#x}" for name, was, now in values if was != now]
        for name, was in old.state.items():
            if was != new.state[name]:
                changes.append(f"{name}={was:#x}->{new.state[name]:#x}")
        return changes

    def _note_access(
        self,
        _cpu: Any,  # noqa: ANN401
        kind: AccessKind,
        address: int,
        size: int,
        value: int | None,
    ) -> None:
        shown = "?" if value is None else f"{value:#x}"
        self._accesses.append(f"[{address:#x}]{size}{'=' if kind == AccessKind.WRITE else '->'}{shown}")
