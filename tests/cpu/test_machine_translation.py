"""Machine memory behind a translation of addresses: pages anywhere, permissions of their own, and the TLB."""

import array

import pytest

from anyvirt.cpu.executor import Access, Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory

RAM = 0x8000_0000
PAGE = 4096
ADDI_A0, EBREAK, RET = 0x150513, 0x100073, 0x8067
LD_A0_A1, SD_A0_A1 = 0x0005B503, 0x00A5B023
READ, WRITE, EXECUTE = 1, 2, 4


def words(*instructions):
    return b"".join(word.to_bytes(4, "little") for word in instructions)


class Machine:
    """A CPU with a table of 16 pages: guest page n is anywhere in 16 pages of RAM."""

    def __init__(self):
        self.memory = MachineMemory()
        self.memory.add_ram(RAM, 16 * PAGE)
        self.cpu = Interpreter("riscv64", self.memory)
        self.table = array.array("Q", [16] + [0] * 16)
        self.cpu._view.set_translation(self.table.buffer_info()[0])

    def map(self, page, frame, rights):
        """Let a page of the guest's be a page of RAM."""
        self.table[1 + page] = RAM + frame * PAGE | rights

    def run(self, pc, budget=None):
        """Run from an address."""
        self.cpu.pc = pc
        return self.cpu.run(budget)


@pytest.fixture
def machine():
    return Machine()


def test_data_is_where_the_table_says(machine):
    machine.map(0, 5, READ | EXECUTE)
    machine.map(1, 9, READ | WRITE)
    machine.map(2, 7, READ | WRITE)
    machine.memory.write(RAM + 5 * PAGE, words(SD_A0_A1, LD_A0_A1, EBREAK))
    for address in (PAGE, 2 * PAGE, 2 * PAGE - 3):
        machine.cpu.x[10], machine.cpu.x[11] = 0x1122334455667788, address
        assert machine.run(0).reason == StopReason.BREAKPOINT
        assert machine.cpu.x[10] == 0x1122334455667788
    content = (0x1122334455667788).to_bytes(8, "little")
    assert machine.memory.read(RAM + 9 * PAGE, 8) == content
    assert machine.memory.read(RAM + 10 * PAGE - 3, 3) == content[:3]
    assert machine.memory.read(RAM + 7 * PAGE, 5) == content[3:]


@pytest.mark.parametrize(("rights", "failing"), [(READ, WRITE), (WRITE, READ), (READ | WRITE, EXECUTE)])
def test_rights_of_the_table(machine, rights, failing):
    machine.map(0, 5, READ | EXECUTE)
    machine.memory.write(RAM + 5 * PAGE, words(LD_A0_A1, EBREAK, SD_A0_A1, EBREAK))
    machine.map(1, 9, rights)
    machine.cpu.x[11] = PAGE + 8
    # Twice: the TLB must not know more than it may.
    for _ in range(2):
        failed = [
            bit
            for bit, pc in ((READ, 0), (WRITE, 8), (EXECUTE, PAGE + 4))
            if machine.run(pc, 2).reason == StopReason.ACCESS_FAULT
        ]
        assert failing in failed
        assert not {READ, WRITE} & set(failed) & {bit for bit in (READ, WRITE) if rights & bit}


def test_a_changed_table_counts_after_a_flush(machine):
    machine.map(0, 5, READ | EXECUTE)
    machine.map(1, 9, READ)
    machine.memory.write(RAM + 5 * PAGE, words(LD_A0_A1, EBREAK))
    machine.memory.write(RAM + 9 * PAGE, b"\1")
    machine.memory.write(RAM + 10 * PAGE, b"\2")
    machine.cpu.x[11] = PAGE
    for address, expected in ((None, 2), (PAGE, 1)):
        machine.run(0)
        machine.map(1, 10 if expected == 2 else 9, READ)
        machine.cpu.flush_tlb(address)
        machine.run(0)
        assert machine.cpu.x[10] == expected
    machine.map(1, 9, 0)
    machine.cpu.flush_tlb(PAGE + 77)
    assert machine.run(0) == Stop(StopReason.ACCESS_FAULT, 0, address=PAGE, access=Access.READ)


def test_code_goes_from_page_to_page_of_the_guest(machine):
    frames = {0: 11, 1: 3, 2: 8}
    for page, frame in frames.items():
        machine.map(page, frame, READ | EXECUTE)
        machine.memory.write(RAM + frame * PAGE, words(ADDI_A0) * 1024)
    machine.memory.write(RAM + 8 * PAGE, words(EBREAK))
    for _ in range(2):
        machine.cpu.x[10] = 0
        assert machine.run(0) == Stop(StopReason.BREAKPOINT, 2 * PAGE, length=4)
        assert machine.cpu.x[10] == 2048
    # The same frames in another order: nothing needs to be decoded again.
    machine.map(1, 11, READ | EXECUTE)
    machine.map(0, 3, READ | EXECUTE)
    machine.cpu.flush_tlb()
    assert machine.run(4).pc == 2 * PAGE
    machine.map(2, 8, READ)
    machine.cpu.flush_tlb()
    assert machine.run(4) == Stop(StopReason.ACCESS_FAULT, 2 * PAGE, address=2 * PAGE, access=Access.EXECUTE)


def test_an_instruction_across_pages_follows_the_table(machine):
    machine.map(0, 4, READ | EXECUTE)
    # addi a0, a0, 1 and addi a0, a0, 2 have different second halves.
    for frame, value in ((7, 1), (2, 2)):
        instruction = words(0x513 | 10 << 15 | value << 20)
        machine.memory.write(RAM + 5 * PAGE - 2, instruction[:2])
        machine.memory.write(RAM + frame * PAGE, instruction[2:] + words(EBREAK))
        machine.map(1, frame, READ | EXECUTE)
        machine.cpu.flush_tlb(PAGE)
        machine.cpu.x[10] = 0
        assert machine.run(PAGE - 2).pc == PAGE + 2
        assert machine.cpu.x[10] == value
    machine.map(1, 7, READ)
    machine.cpu.flush_tlb(PAGE)
    assert machine.run(PAGE - 2) == Stop(
        StopReason.ACCESS_FAULT, PAGE - 2, address=PAGE, access=Access.EXECUTE
    )


def test_one_frame_at_two_addresses(machine):
    """Its code is decoded once and still knows where it is; a change through one address is seen by both."""
    for page in (0, 3):
        machine.map(page, 6, READ | WRITE | EXECUTE)
    auipc_a0 = 0x517
    machine.memory.write(RAM + 6 * PAGE, words(auipc_a0, EBREAK, SD_A0_A1, EBREAK))
    for page in (0, 3, 0):
        assert machine.run(page * PAGE).pc == page * PAGE + 4
        assert machine.cpu.x[10] == page * PAGE
    machine.cpu.x[10], machine.cpu.x[11] = int.from_bytes(words(ADDI_A0, ADDI_A0), "little"), 3 * PAGE
    assert machine.run(8).reason == StopReason.BREAKPOINT
    machine.cpu.x[10] = 0
    machine.memory.write(RAM + 6 * PAGE + 8, words(EBREAK))
    machine.run(0)
    assert machine.cpu.x[10] == 2


def test_addresses_that_have_no_record_are_no_code(machine):
    for pc in (16 * PAGE, 1 << 60, (1 << 64) - PAGE, 1 << 63):
        machine.map(0, 5, READ | EXECUTE)
        machine.memory.write(RAM + 5 * PAGE, words(0x00058067))  # jr a1
        machine.cpu.x[11] = pc
        fault = Stop(StopReason.ACCESS_FAULT, pc, address=pc, access=Access.EXECUTE)
        assert machine.run(0) == fault
        assert machine.run(pc) == fault
