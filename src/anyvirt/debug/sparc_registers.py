"""The registers of SPARC V8 as gdb wants them: the window that can be seen, PSR in one, and both counters.

"Debugging with GDB", section "SPARC Features"; The SPARC Architecture Manual, Version 8, section 4.2. There
is no floating-point unit: what gdb insists on is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyvirt.debug.registers import (
    AttributeBits,
    Computed,
    Constant,
    Feature,
    FileRegister,
    JoinedBits,
    Register,
    StateValue,
    TargetDescription,
)
from anyvirt.isa.description import DELAY_SLOT

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet

_SPARC_FLAGS = tuple((StateValue(name), 23 - place, 1) for place, name in enumerate("nzvc"))
_INSTRUCTION = 4
_POINTERS = {"o6": "sp", "i6": "fp"}


def read_next_counter(cpu: Any) -> int:  # noqa: ANN401 - any executor
    """nPC: the next instruction, or behind the delay slot of a taken branch where that leads."""
    if cpu.pc & DELAY_SLOT:
        return int(cpu.state("delay_target"))
    return int(cpu.pc + _INSTRUCTION) & 0xFFFF_FFFF


def write_next_counter(cpu: Any, value: int) -> None:  # noqa: ANN401 - any executor
    """Elsewhere than behind PC, it means that the instruction at PC is in a delay slot."""
    here = cpu.pc & ~DELAY_SLOT
    if value == here + _INSTRUCTION & 0xFFFF_FFFF:
        cpu.pc = here
    else:
        cpu.pc = here | DELAY_SLOT
        cpu.set_state("delay_target", value)


def sparc_description(isa: InstructionSet) -> TargetDescription:
    """The integer unit."""
    names = (f"{group}{number}" for group in "goli" for number in range(8))
    window = tuple(
        Register(
            _POINTERS.get(name, name),
            32,
            FileRegister("r", number),
            "data_ptr" if name in _POINTERS else "int",
        )
        for number, name in enumerate(names)
    )
    status = JoinedBits((*_SPARC_FLAGS, (StateValue("cwp"), 0, 5)))
    counter = Register("pc", 32, AttributeBits("pc", clear=DELAY_SLOT), "code_ptr")
    next_counter = Register("npc", 32, Computed(read_next_counter, write_next_counter), "code_ptr")
    control = (
        Register("y", 32, StateValue("y")),
        Register("psr", 32, status),
        Register("wim", 32, StateValue("wim")),
        Register("tbr", 32, Constant()),
        counter,
        next_counter,
        Register("fsr", 32, Constant(), group="float"),
        Register("csr", 32, Constant()),
    )
    floats = tuple(Register(f"f{number}", 32, Constant(), "ieee_single") for number in range(32))
    features = (
        Feature("org.gnu.gdb.sparc.cpu", window),
        Feature("org.gnu.gdb.sparc.fpu", floats),
        Feature("org.gnu.gdb.sparc.cp0", control),
    )
    return TargetDescription("sparc", features, isa.byte_order, ("pc", "npc", "sp", "fp"))
