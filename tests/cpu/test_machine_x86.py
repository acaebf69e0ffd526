"""Byte streams in machine memory: x86-64 at every distance from the end of a page."""

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.reference import ReferenceExecutor

RAM, PAGE = 0x400000, 4096
RCX, RSI, RDI = 1, 6, 7
# mov rax, 1; again: add rax, [rdi]; mov [rsi], rax; add rdi, 8; dec rcx; jnz again; syscall
PROGRAM = bytes.fromhex("48b80100000000000000 480307 488906 4883c708 48ffc9 75f1 0f05")


def outcome(make, place):
    memory = MachineMemory()
    memory.add_ram(RAM, 16 * PAGE)
    memory.write(place, PROGRAM)
    memory.write(RAM + 8 * PAGE, bytes(range(256)) * 4)
    cpu = make("x86_64", memory)
    registers = cpu.registers("r")
    # The store crosses pages as well.
    registers[RCX], registers[RSI], registers[RDI] = 20, RAM + 6 * PAGE - 4, RAM + 8 * PAGE
    cpu.pc = place
    stops = [cpu.run(7), cpu.run()]
    assert stops[1].reason == StopReason.SYSTEM_CALL
    return stops, list(registers), memory.read(RAM + 6 * PAGE - 8, 16)


@pytest.mark.slow
def test_instructions_across_pages():
    for distance in range(len(PROGRAM) + 1):
        place = RAM + 2 * PAGE - distance
        assert outcome(Interpreter, place) == outcome(ReferenceExecutor, place), distance
