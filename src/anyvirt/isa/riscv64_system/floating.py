"""mstatus.FS: floating point can be switched off, and knows whether its state has changed.

Privileged, "Extension Context Status in mstatus Register". Instructions that may change a register or raise
an exception make the state dirty, whether or not they do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.riscv64 import floating, riscv64
from anyvirt.isa.riscv64_system.hart import MSTATUS, Status, SystemHart
from anyvirt.isa.system import Guard

if TYPE_CHECKING:
    from collections.abc import Callable


def is_on(cpu: SystemHart) -> bool:
    """Whether floating point can be used."""
    return cpu.csr[MSTATUS] & Status.FS != 0


def refuse(cpu: SystemHart) -> bool:
    """Never make it usable."""
    return cpu.csr[MSTATUS] & Status.FS != 0


def is_dirty(cpu: SystemHart) -> bool:
    """Whether floating point can be used, and has been."""
    return cpu.csr[MSTATUS] & Status.FS == Status.FS


def become_dirty(cpu: SystemHart) -> bool:
    """Note that the state is going to change."""
    if cpu.csr[MSTATUS] & Status.FS == 0:
        return False
    cpu.csr[MSTATUS] = cpu.csr[MSTATUS] | Status.FS
    return True


USES = Guard("floating", is_on, refuse)
CHANGES = Guard("floating.dirty", is_dirty, become_dirty)
_READING = (floating.fsw, floating.fsd, floating.fmv_x_w, floating.fmv_x_d)


def guards() -> dict[Callable[..., None], Guard]:
    """The guards of all instructions of F and D."""
    return {
        pattern.semantics: USES if pattern.semantics in _READING else CHANGES
        for pattern in riscv64.patterns
        if pattern.semantics.__module__ == floating.__name__
    }
