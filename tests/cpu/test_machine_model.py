"""Handlers for machine memory where an instruction changes something before it reaches for memory."""

import sys
import types

import pytest

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.isa.description import InstructionSet
from anyvirt.isa.processor import Processor, Register, Registers
from anyvirt.typed import u8, u16, u64

CODE, DATA, DEVICE = 0x10000, 0x20000, 0x30000
PAGE = 4096


class Eager(Processor):
    r: Registers
    count: u64


def length(parcel: u16) -> u8:
    return u8(2)


def describe():
    isa = InstructionSet("eager", "Changes registers before it accesses memory", 2, length)
    isa.registers("r", ["a", "b", "c", "d"])
    isa.state("count", 0, "accesses tried")
    isa.register_field("to", 2, "r")
    isa.register_field("from", 2, "r", operand="source")

    @isa.instruction("0000 0000 0000 to from", "load {to}, {source}")
    def load(cpu: Eager, to: Register, source: Register) -> None:
        cpu.count = cpu.count + 1
        cpu.r[to] = cpu.load64(cpu.r[source])

    @isa.instruction("0000 0000 0001 to from", "store {to}, {source}")
    def store(cpu: Eager, to: Register, source: Register) -> None:
        cpu.count = cpu.count + 1
        cpu.store64(cpu.r[source], cpu.r[to])

    @isa.instruction("0000 0000 0010 to from", "swap {to}, {source}")
    def swap(cpu: Eager, to: Register, source: Register) -> None:
        cpu.count = cpu.count + 1
        cpu.r[to] = cpu.exchange("swap", cpu.r[source], cpu.r[to])

    @isa.instruction("0000 0000 0011 to from", "copy {to}, {source}")
    def copy(cpu: Eager, to: Register, source: Register) -> None:
        cpu.r[to] = cpu.exchange("add", cpu.r[source], u64(1))
        cpu.r[to] = cpu.load64(cpu.r[to])

    @isa.instruction("0000 0000 0100 to from", "claim {to}, {source}")
    def claim(cpu: Eager, to: Register, source: Register) -> None:
        cpu.count = cpu.count + 1
        stored = cpu.compare_exchange(cpu.r[source], cpu.r[to], u64(99))
        cpu.r[to] = u64(stored)

    @isa.instruction("1111 1111 1111 1111", "call")
    def call(cpu: Eager) -> None:
        cpu.system_call()

    isa.build()
    return isa


@pytest.fixture(scope="module", autouse=True)
def eager():
    module = types.ModuleType("anyvirt.isa.eager")
    module.eager = describe()
    sys.modules[module.__name__] = module
    yield module.eager
    del sys.modules[module.__name__]


class Device:
    def read(self, offset, size):
        return 0x77

    def write(self, offset, size, value):
        self.written = value


@pytest.fixture(params=[Interpreter, ReferenceExecutor], ids=["interpreter", "reference"])
def cpu(request):
    memory = MachineMemory()
    for address in (CODE, DATA):
        memory.add_ram(address, PAGE)
    memory.device = Device()
    memory.add_mmio(DEVICE, 64, memory.device)
    return request.param("eager", memory)


def run(cpu, *program):
    cpu.memory.write(CODE, b"".join(word.to_bytes(2, "little") for word in (*program, 0xFFFF)))
    cpu.pc = CODE
    return cpu.run()


LOAD, STORE, SWAP, COPY, CLAIM = (number << 4 | 0 << 2 | 1 for number in range(5))
"""Of register a, at the address in b."""


def test_what_was_changed_before_is_changed_once(cpu):
    registers = cpu.registers("r")
    for address in (DATA, DATA, DEVICE):
        cpu.set_state("count", 0)
        registers[0], registers[1] = 0x1234, address
        assert run(cpu, STORE, LOAD).reason == StopReason.SYSTEM_CALL
        assert cpu.state("count") == 2
        assert registers[0] == (0x77 if address == DEVICE else 0x1234)
    assert cpu.memory.device.written == 0x1234


def test_atomics_happen_once(cpu):
    registers = cpu.registers("r")
    cpu.memory.write(DATA, (DATA + 8).to_bytes(8, "little") + (55).to_bytes(8, "little"))
    registers[1] = DATA
    for expected in (55, 55):
        cpu.memory.write(DATA, (DATA + 8).to_bytes(8, "little"))
        assert run(cpu, COPY).reason == StopReason.SYSTEM_CALL
        assert registers[0] == expected
        assert cpu.memory.read(DATA, 8) == (DATA + 9).to_bytes(8, "little")
    registers[0] = 7
    run(cpu, SWAP, SWAP)
    assert registers[0] == 7
    registers[0] = DATA + 9
    run(cpu, CLAIM)
    assert (registers[0], cpu.memory.read(DATA, 8)) == (1, (99).to_bytes(8, "little"))
    run(cpu, CLAIM)
    assert registers[0] == 0


@pytest.mark.parametrize("instruction", [LOAD, STORE, SWAP, CLAIM])
def test_a_fault_comes_after_what_was_changed_before(cpu, instruction):
    cpu.registers("r")[1] = 0x50000
    access = Access.READ if instruction == LOAD else Access.WRITE
    assert run(cpu, instruction) == Stop(StopReason.ACCESS_FAULT, CODE, address=0x50000, access=access)
    assert cpu.state("count") == 1
