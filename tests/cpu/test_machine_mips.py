"""Big-endian MIPS in machine memory: byte order, and delay slots on either side of the end of a page."""

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.reference import ReferenceExecutor

RAM, PAGE = 0x400000, 4096
A0, A1, A2 = 4, 5, 6
PROGRAM = (
    0x8C880000,  # again: lw t0, 0(a0)
    0x00481021,  # addu v0, v0, t0
    0xACA20000,  # sw v0, 0(a1)
    0x24C6FFFF,  # addiu a2, a2, -1
    0x14C0FFFB,  # bnez a2, again
    0x24840004,  # addiu a0, a0, 4
    0x0000000D,  # break
)


def outcome(make, place):
    memory = MachineMemory()
    memory.add_ram(RAM, 16 * PAGE)
    memory.write(place, b"".join(word.to_bytes(4, "big") for word in PROGRAM))
    memory.write(RAM + 8 * PAGE, bytes(range(256)))
    cpu = make("mips", memory)
    registers = cpu.registers("r")
    registers[A0], registers[A1], registers[A2] = RAM + 8 * PAGE, RAM + 6 * PAGE, 9
    cpu.pc = place
    seen = [(cpu.run(budget), cpu.pc, list(registers)) for budget in (1, 4, 5, 1, 1, None)]
    assert seen[-1][0].reason == StopReason.BREAKPOINT
    return seen, memory.read(RAM + 6 * PAGE, 8)


@pytest.mark.parametrize("distance", range(len(PROGRAM) + 1))
def test_loops_with_delay_slots_across_pages(distance):
    place = RAM + 2 * PAGE - 4 * distance
    assert outcome(Interpreter, place) == outcome(ReferenceExecutor, place)
