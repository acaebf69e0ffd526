"""Instructions in guest memory as text: what traces, coverage maps and debuggers show."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from anyvirt.cpu.memory import PAGE_SIZE, GuestFault
from anyvirt.isa.description import DELAY_SLOT
from anyvirt.jit.ahead import instruction_set

if TYPE_CHECKING:
    from anyvirt.isa.description import InstructionSet

_WINDOW = 16
"""No instruction has more bytes."""


@dataclass(frozen=True)
class Instruction:
    """An instruction where it is; what cannot be decoded counts as one of the smallest possible length."""

    address: int
    code: bytes
    text: str | None
    """Assembly; None if the bytes are no instruction, or not there."""

    @property
    def length(self) -> int:
        """Bytes."""
        return len(self.code)

    @property
    def shown(self) -> str:
        """Assembly, or the bytes as data."""
        return self.text or f".byte {', '.join(f'{byte:#04x}' for byte in self.code)}"


def instruction_at(cpu: Any, address: int) -> Instruction:  # noqa: ANN401 - any executor
    """The instruction at an address of an executor's memory, in the mode that the CPU is in."""
    isa = instruction_set(cpu.isa)
    if isa.delay_slots:
        address &= ~DELAY_SLOT
    mode = cpu.state("mode") if isa.context is not None else 0
    return _disassembled(cpu.isa, address, _window(cpu, address), mode)


@lru_cache(maxsize=1 << 14)
def _disassembled(name: str, address: int, window: bytes, mode: int) -> Instruction:
    """The instruction that `window` begins with."""
    isa = instruction_set(name)
    decoded = isa.decode(window, mode)
    if decoded is None or decoded.length > len(window):
        length = _length(isa, window)
        return Instruction(address, window[:length].ljust(length, b"\0"), None)
    text = isa.disassemble(decoded.word, decoded.length, address)
    return Instruction(address, window[: decoded.length], text)


def _window(cpu: Any, address: int) -> bytes:  # noqa: ANN401 - any executor
    """The bytes that an instruction may have, as far as they are there."""
    here = PAGE_SIZE - address % PAGE_SIZE
    pieces = [(address, min(_WINDOW, here))]
    if here < _WINDOW:
        pieces.append((address + here, _WINDOW - here))
    code = b""
    for start, length in pieces:
        try:
            code += cpu.look(start, length)
        except (GuestFault, OverflowError):
            break
    return code


def _length(isa: InstructionSet, window: bytes) -> int:
    """Bytes of what is no instruction."""
    if isa.length is None or len(window) < isa.parcel:
        return isa.parcel
    from anyvirt.typed import u16

    return int(isa.length(u16(int.from_bytes(window[: isa.parcel], isa.byte_order) & 0xFFFF)))
