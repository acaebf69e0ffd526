"""Privileged RISC-V: modes, traps, interrupts, translation, protection, timers; each in every executor."""

import threading
import time

import pytest
from tests.cpu.system_machines import (
    ACCESSED,
    ALL,
    CODE,
    DATA,
    DIRTY,
    EXECUTE,
    HANDLER,
    ISA,
    MACHINE,
    OPEN_PMP,
    PAGE,
    RAM,
    READ,
    SUPERVISOR,
    USER,
    USER_MODE,
    VALID,
    WRITE,
    PageTables,
    SystemMachine,
)

from anyvirt.cpu.executor import Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.machine_translator import MachineTranslator
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.stencil_executor import StencilExecutor
from anyvirt.cpu.tiers import make_executor
from anyvirt.cpu.translator import Translator
from anyvirt.errors import UnsupportedError, UsageError

VIRTUAL = 0x4000_0000
MIE, SIE, MPRV, SUM, MXR, TVM, TW, TSR, FS = (
    8,
    2,
    1 << 17,
    1 << 18,
    1 << 19,
    1 << 20,
    1 << 21,
    1 << 22,
    3 << 13,
)
ADUE, STCE = 1 << 61, 1 << 63
INTERRUPT = 1 << 63
MSTATUS = 0xA_0000_0000


@pytest.fixture(params=[ReferenceExecutor, Interpreter, StencilExecutor])
def machine(request):
    made = SystemMachine(request.param)
    made.set_control(mtvec=HANDLER, stvec=HANDLER + 0x100)
    return made


def run(machine, count):
    """Execute some instructions, all of which must be possible."""
    stop = machine.cpu.run(count)
    assert stop.reason == StopReason.BUDGET, stop


def trap(machine, mode="m"):
    """Cause, address of the instruction and value of the last trap to a mode."""
    return tuple(machine.control(mode + name) for name in ("cause", "epc", "tval"))


def is_in(machine, mode, pc):
    return (machine.cpu.state("privilege"), machine.cpu.pc) == (mode, pc)


# Exceptions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "cause"), [(USER_MODE, 8), (SUPERVISOR, 9), (MACHINE, 11)])
def test_calls_are_told_by_mode(machine, mode, cause):
    machine.write(CODE + 8, "ecall")
    machine.enter(mode, CODE + 8, mstatus=MSTATUS | MIE)
    run(machine, 1)
    assert is_in(machine, MACHINE, HANDLER)
    assert trap(machine) == (cause, CODE + 8, 0)
    assert machine.control("mstatus") == MSTATUS | 1 << 7 | mode << 11


def test_delegated_exceptions_go_to_supervisor_mode(machine):
    machine.write(CODE, "ecall")
    machine.enter(USER_MODE, medeleg=1 << 8, mstatus=MSTATUS | SIE)
    run(machine, 1)
    assert is_in(machine, SUPERVISOR, HANDLER + 0x100)
    assert trap(machine, "s") == (8, CODE, 0)
    assert machine.control("mstatus") == MSTATUS | 1 << 5
    machine.enter(MACHINE, CODE)
    run(machine, 1)
    assert is_in(machine, MACHINE, HANDLER)


@pytest.mark.parametrize(
    ("text", "cause", "value"),
    [
        ("ebreak", 3, CODE),
        (".word 0xffffffff", 2, 0xFFFFFFFF),
        (".half 0", 2, 0),
        ("csrrw a0, 0x5c0, a1", 2, 0x5C059573),
        ("ld a0, 0(a2)", 5, 0x1000),
        ("sd a0, 1(a2)", 7, 0x1001),
        ("amoadd.d a0, a1, (a3)", 6, DATA + 4),
        ("lr.d a0, (a3)", 4, DATA + 4),
        ("jalr zero, 0(a2)", 1, 0x1000),
    ],
)
def test_causes_and_values(machine, text, cause, value):
    machine.write(CODE, text)
    machine.enter(MACHINE)
    machine.cpu.x[12], machine.cpu.x[13] = 0x1000, DATA + 4
    count = 2 if cause == 1 else 1
    run(machine, count)
    assert trap(machine) == (cause, value if cause == 1 else CODE, value)
    assert machine.cpu.instructions == count


def test_returning(machine):
    machine.write(CODE, "mret")
    machine.write(CODE + 0x40, "sret")
    machine.enter(
        MACHINE, mepc=CODE + 0x40, sepc=CODE + 0x80, mstatus=MSTATUS | 1 << 11 | 1 << 7 | 1 << 5 | MPRV
    )
    run(machine, 1)
    assert is_in(machine, SUPERVISOR, CODE + 0x40)
    assert machine.control("mstatus") == MSTATUS | 1 << 7 | MIE | 1 << 5
    run(machine, 1)
    assert is_in(machine, USER_MODE, CODE + 0x80)
    assert machine.control("mstatus") == MSTATUS | 1 << 7 | MIE | SIE | 1 << 5


@pytest.mark.parametrize(
    ("text", "mode", "status"),
    [
        ("mret", SUPERVISOR, 0),
        ("sret", USER_MODE, 0),
        ("sret", SUPERVISOR, TSR),
        ("wfi", USER_MODE, 0),
        ("wfi", SUPERVISOR, TW),
        ("sfence.vma zero, zero", USER_MODE, 0),
        ("sfence.vma zero, zero", SUPERVISOR, TVM),
        ("csrrs a0, satp, zero", SUPERVISOR, TVM),
        ("csrrs a0, mstatus, zero", SUPERVISOR, 0),
        ("csrrs a0, sstatus, zero", USER_MODE, 0),
        ("csrrw zero, mhartid, a0", MACHINE, 0),
        ("csrrs a0, time, zero", SUPERVISOR, 0),
        ("csrrs a0, stimecmp, zero", SUPERVISOR, 0),
        ("cbo.zero (a0)", SUPERVISOR, 0),
        ("fadd.d f0, f0, f0", MACHINE, 0),
        ("csrrs a0, fcsr, zero", MACHINE, 0),
    ],
)
def test_what_a_mode_may_not_do(machine, text, mode, status):
    machine.write(CODE, text)
    machine.enter(mode, mstatus=MSTATUS | status)
    run(machine, 1)
    assert machine.control("mcause") == 2
    assert is_in(machine, MACHINE, HANDLER)


def test_an_endless_exception_uses_up_the_budget(machine):
    machine.enter(MACHINE, 0x1000, mtvec=0x2000)
    run(machine, 1000)
    assert machine.cpu.instructions == 1000
    assert trap(machine) == (1, 0x2000, 0x2000)


def test_addresses_that_no_instruction_can_have(machine):
    """In the midst of a budget and at its end, and when a run begins there."""
    for address in (1 << 60, 1 << 63, 0xD411_514A_B8C7_5558):
        machine.write(CODE, "mret")
        machine.enter(MACHINE, CODE, mepc=address, mtvec=HANDLER, mstatus=MSTATUS | 3 << 11)
        run(machine, 1)
        assert machine.cpu.pc == address
        run(machine, 1)
        assert trap(machine) == (1, address, address)
        machine.enter(MACHINE, address, mtvec=address)
        run(machine, 10)
        assert is_in(machine, MACHINE, address)
        assert trap(machine) == (1, address, address)


# Interrupts -------------------------------------------------------------------------------------------------


def test_an_interrupt_waits_until_it_is_enabled(machine):
    machine.write(CODE, "addi a0, a0, 1\ncsrrsi zero, mstatus, 8\naddi a0, a0, 1")
    machine.enter(MACHINE, mie=1 << 7)
    machine.cpu.set_interrupt(7, True)
    run(machine, 2)
    run(machine, 0)
    machine.write(HANDLER, "addi a1, a1, 1")
    run(machine, 1)
    assert machine.cpu.x[10:12] == [1, 1]
    assert trap(machine) == (INTERRUPT | 7, CODE + 8, 0)


def test_vectored_interrupts_in_their_order(machine):
    machine.write(CODE, "addi a0, a0, 1")
    for line in (3, 7, 11):
        machine.cpu.set_interrupt(line, True)
    for line in (11, 3, 7):
        machine.enter(USER_MODE, mie=0xAAA, mtvec=HANDLER | 1)
        machine.write(HANDLER + 4 * line, "addi a0, a0, 1")
        run(machine, 1)
        assert is_in(machine, MACHINE, HANDLER + 4 * line + 4)
        machine.cpu.set_interrupt(line, False)


def test_a_delegated_interrupt_does_not_disturb_machine_mode(machine):
    machine.write(CODE, "addi a0, a0, 1\nmret")
    machine.cpu.set_interrupt(9, True)
    machine.enter(MACHINE, mideleg=0x222, mie=0x222, mepc=CODE, mstatus=MSTATUS | MIE)
    run(machine, 2)
    machine.write(HANDLER + 0x100, "addi a1, a1, 1")
    run(machine, 1)
    assert is_in(machine, SUPERVISOR, HANDLER + 0x104)
    assert trap(machine, "s") == (INTERRUPT | 9, CODE, 0)


def test_software_sees_and_sets_pending_interrupts(machine):
    machine.write(CODE, "csrrs a0, mip, zero\ncsrrsi a1, sip, 2\ncsrrs a2, sip, zero\ncsrrs a3, mip, zero")
    machine.cpu.set_interrupt(11, True)
    machine.cpu.set_interrupt(9, True)
    machine.enter(MACHINE, mideleg=0x222)
    run(machine, 4)
    assert machine.cpu.x[10:14] == [0xA00, 0x200, 0x202, 0xA02]


def test_waiting_for_an_interrupt(machine):
    machine.write(CODE, "wfi\naddi a0, a0, 1")
    machine.enter(MACHINE, mie=1 << 3)
    assert machine.cpu.run(10) == Stop(StopReason.IDLE, CODE + 4)
    assert not machine.cpu.system.wait(0)
    machine.cpu.set_interrupt(3, True)
    assert machine.cpu.system.wait(10)
    run(machine, 1)
    assert machine.cpu.x[10] == 1
    machine.enter(MACHINE)
    run(machine, 2)
    assert machine.cpu.x[10] == 2


@pytest.mark.parametrize("make", [Interpreter, StencilExecutor])
def test_an_interrupt_from_another_thread_ends_a_loop(make):
    machine = SystemMachine(make)
    machine.write(CODE, "loop: addi a0, a0, 1\njal zero, loop")
    machine.enter(MACHINE, mtvec=HANDLER, mie=1 << 11, mstatus=MSTATUS | MIE)
    machine.write(HANDLER, "csrrw zero, mie, zero\nwfi")

    def raise_line():
        while machine.cpu.x[10] == 0:
            time.sleep(0.001)
        machine.cpu.set_interrupt(11, True)

    other = threading.Thread(target=raise_line)
    other.start()
    assert machine.cpu.run() == Stop(StopReason.IDLE, HANDLER + 8)
    other.join()
    assert trap(machine)[0] == INTERRUPT | 11


# Timer and counters -----------------------------------------------------------------------------------------


def test_the_supervisors_timer_is_exact_in_counted_runs(machine):
    machine.write(CODE, "csrrw zero, stimecmp, a0\nloop: addi a1, a1, 1\njal zero, loop")
    machine.write(HANDLER + 0x100, "csrrs a2, time, zero")
    machine.enter(SUPERVISOR, mideleg=0x222, mie=0x20, menvcfg=STCE, mcounteren=7, mstatus=MSTATUS | SIE)
    machine.cpu.x[10] = 10
    run(machine, 1000)
    run(machine, 1)
    assert machine.cpu.x[12] == 10
    assert machine.control("scause") == INTERRUPT | 5
    assert machine.cpu.x[11] == 500


@pytest.mark.parametrize("make", [Interpreter, StencilExecutor])
def test_who_runs_a_cpu_is_told_when_its_timer_is_due(make):
    machine = SystemMachine(make)
    told = []
    machine.cpu.system.on_timer = told.append
    machine.write(CODE, "csrrw zero, stimecmp, a0\ncsrrw zero, stimecmp, a1\nwfi")
    machine.enter(MACHINE, menvcfg=STCE, mie=0x20)
    machine.cpu.system.set_time(5_000)
    machine.cpu.x[10], machine.cpu.x[11] = 1 << 40, (1 << 64) - 1
    assert machine.cpu.run().reason == StopReason.IDLE
    assert told == [100 << 40, None]
    assert machine.cpu.system.lines == 0
    machine.cpu.pc, machine.cpu.x[11] = CODE, 50
    machine.write(CODE + 8, "csrrs a2, mip, zero\nwfi\ncsrrw zero, mie, zero\nwfi")
    assert machine.cpu.run() == Stop(StopReason.IDLE, CODE + 24)
    assert machine.cpu.x[12] == 0x20


def test_counters_of_machine_mode_can_be_set(machine):
    machine.write(CODE, "csrrw zero, minstret, a0\ncsrrs a1, minstret, zero\ncsrrs a2, instret, zero")
    machine.enter(MACHINE)
    machine.cpu.x[10] = 1 << 40
    run(machine, 3)
    assert machine.cpu.x[11:13] == [1 << 40, (1 << 40) + 1]


@pytest.mark.parametrize("make", [Interpreter, StencilExecutor])
def test_time_goes_on_with_the_hosts_clock(make):
    machine = SystemMachine(make)
    machine.write(CODE, "csrrs a0, time, zero\nwfi")
    machine.enter(MACHINE)
    machine.cpu.system.set_time(3_600_000_000_000)
    before = time.monotonic_ns()
    machine.cpu.run()
    passed = machine.cpu.x[10] * 100 - 3_600_000_000_000
    assert 0 <= passed <= time.monotonic_ns() - before + 10_000_000_000


# Floating point ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "dirty"), [("fsd f0, 0(a0)", False), ("fmv.x.d a1, f0", False), ("fld f0, 0(a0)", True)]
)
def test_floating_point_notes_that_it_was_used(machine, text, dirty):
    machine.write(CODE, f"{text}\ncsrrs a2, sstatus, zero")
    machine.enter(SUPERVISOR, mstatus=MSTATUS | 1 << 13)
    machine.cpu.x[10] = DATA
    run(machine, 2)
    assert machine.cpu.x[12] == (0x2_0000_0000 | (FS | 1 << 63 if dirty else 1 << 13))


# Translation ------------------------------------------------------------------------------------------------


@pytest.fixture(params=[3, 4, 5])
def translated(request, machine):
    """The machine with page tables: its code at VIRTUAL for both modes, in page 0 and 1."""
    tables = PageTables(machine.memory, request.param)
    tables.map(VIRTUAL, CODE, ALL)
    tables.map(VIRTUAL + PAGE, CODE, ALL | USER)
    machine.tables = tables
    return machine


LOAD, STORE, LOAD_FAULT, STORE_FAULT, FETCH_FAULT = "ld a0, 0(a1)", "sd a2, 0(a1)", 13, 15, 12


def attempt(machine, text, flags, mode=SUPERVISOR, level=0, address=VIRTUAL + (1 << 29), **control):
    """Access a page with the given flags in a mode; the cause of what it comes to, 0 if it is possible."""
    machine.tables.map(address, DATA if level == 0 else RAM, flags, level)
    machine.write(CODE, text)
    machine.cpu.x[11] = address + (0 if level == 0 else DATA - RAM)
    pc = VIRTUAL + (PAGE if mode == USER_MODE else 0)
    machine.set_control(mcause=0, satp=machine.tables.satp)
    machine.enter(mode, pc, **control)
    run(machine, 1)
    cause = machine.control("mcause")
    if cause:
        assert trap(machine)[1:] == (pc, machine.cpu.x[11])
    return cause


def test_rights_of_pages(translated):
    for flags, mode, status, causes in (
        (ALL, SUPERVISOR, 0, (0, 0)),
        (ALL, USER_MODE, 0, (LOAD_FAULT, STORE_FAULT)),
        (ALL | USER, USER_MODE, 0, (0, 0)),
        (ALL | USER, SUPERVISOR, 0, (LOAD_FAULT, STORE_FAULT)),
        (ALL | USER, SUPERVISOR, SUM, (0, 0)),
        (ALL & ~WRITE, SUPERVISOR, 0, (0, STORE_FAULT)),
        (ALL & ~(READ | WRITE), SUPERVISOR, 0, (LOAD_FAULT, STORE_FAULT)),
        (ALL & ~(READ | WRITE), SUPERVISOR, MXR, (0, STORE_FAULT)),
        (ALL & ~READ, SUPERVISOR, MXR, (LOAD_FAULT, STORE_FAULT)),
        (ALL & ~VALID, SUPERVISOR, 0, (LOAD_FAULT, STORE_FAULT)),
        (ALL | 1 << 54, SUPERVISOR, 0, (LOAD_FAULT, STORE_FAULT)),
        (ALL | 1 << 61, SUPERVISOR, 0, (0, 0)),
        (ALL | 3 << 61, SUPERVISOR, 0, (LOAD_FAULT, STORE_FAULT)),
    ):
        found = tuple(
            attempt(translated, text, flags, mode, mstatus=MSTATUS | status) for text in (LOAD, STORE)
        )
        assert found == causes, (hex(flags), mode, status)


def test_accessed_and_dirty_are_noted_or_demanded(translated):
    address = VIRTUAL + (1 << 29)
    flags = ALL & ~(ACCESSED | DIRTY)
    assert attempt(translated, LOAD, flags) == 0
    assert translated.tables.entry(address) & (ACCESSED | DIRTY) == ACCESSED
    translated.cpu.pc = VIRTUAL
    translated.write(CODE, STORE)
    run(translated, 1)
    assert translated.tables.entry(address) & (ACCESSED | DIRTY) == ACCESSED | DIRTY
    assert attempt(translated, LOAD, flags, menvcfg=0) == LOAD_FAULT
    assert attempt(translated, LOAD, flags | ACCESSED, menvcfg=0) == 0
    assert attempt(translated, STORE, flags | ACCESSED, menvcfg=0) == STORE_FAULT
    assert translated.tables.entry(address) & (ACCESSED | DIRTY) == ACCESSED


def test_large_pages_are_aligned(translated):
    address = VIRTUAL + (1 << 29)
    assert attempt(translated, LOAD, ALL, level=1) == 0
    assert attempt(translated, LOAD, ALL | 1 << 10, level=1, address=address + (1 << 21)) == LOAD_FAULT


def test_addresses_beyond_the_levels_are_page_faults(translated):
    beyond = 1 << 12 + 9 * translated.tables.levels - 1
    translated.write(CODE, LOAD)
    translated.set_control(satp=translated.tables.satp)
    for address in (beyond, (1 << 64) - beyond - 1, 1 << 63):
        translated.enter(SUPERVISOR, VIRTUAL)
        translated.cpu.x[11] = address
        run(translated, 1)
        assert trap(translated) == (LOAD_FAULT, VIRTUAL, address)
        translated.enter(SUPERVISOR, VIRTUAL)
        translated.write(CODE, "jalr zero, 0(a1)")
        run(translated, 2)
        assert trap(translated) == (FETCH_FAULT, address & ~1, address & ~1)
        translated.write(CODE, LOAD)


def test_machine_mode_can_access_as_another_mode(translated):
    address = VIRTUAL + (1 << 29)
    translated.tables.map(address, DATA, ALL | USER)
    translated.memory.write(DATA, b"\x2a")
    translated.write(CODE, f"{LOAD}\n{LOAD}")
    translated.set_control(satp=translated.tables.satp)
    translated.cpu.x[11] = address
    translated.enter(MACHINE, mstatus=MSTATUS | MPRV)
    run(translated, 1)
    assert translated.cpu.x[10] == int.from_bytes(translated.memory.read(DATA, 8), "little")
    translated.enter(MACHINE, mstatus=MSTATUS)
    run(translated, 1)
    assert trap(translated) == (5, CODE, address)


def test_an_access_across_pages_faults_where_it_does(translated):
    address = VIRTUAL + (1 << 29)
    translated.tables.map(address, DATA, ALL)
    translated.write(CODE, STORE)
    translated.set_control(satp=translated.tables.satp)
    translated.enter(SUPERVISOR, VIRTUAL)
    translated.cpu.x[11] = address + PAGE - 4
    before = translated.memory.read(DATA, 2 * PAGE)
    run(translated, 1)
    assert trap(translated) == (STORE_FAULT, VIRTUAL, address + PAGE)
    assert translated.memory.read(DATA, 2 * PAGE) == before


def test_an_instruction_across_pages_faults_where_it_does(translated):
    translated.memory.write(CODE + 2 * PAGE - 2, b"\x93\x02\x10\x00")
    translated.tables.map(VIRTUAL + (1 << 21), CODE + PAGE, ALL)
    translated.set_control(satp=translated.tables.satp)
    translated.enter(SUPERVISOR, VIRTUAL + (1 << 21) + PAGE - 2)
    run(translated, 1)
    assert trap(translated) == (FETCH_FAULT, VIRTUAL + (1 << 21) + PAGE - 2, VIRTUAL + (1 << 21) + PAGE)


def test_a_fence_makes_changed_tables_count(machine):
    tables = PageTables(machine.memory)
    address = VIRTUAL + (1 << 29)
    tables.map(VIRTUAL, CODE, ALL)
    tables.map(address, DATA, ALL)
    machine.memory.write(DATA, b"\1" + bytes(7))
    machine.memory.write(DATA + PAGE, b"\2" + bytes(7))
    for fence in ("sfence.vma a1, zero", "sfence.vma zero, zero", "sfence.vma zero, a3", "sfence.vma a1, a3"):
        tables.map(address, DATA, ALL)
        machine.write(CODE, f"{LOAD}\n{fence}\n{LOAD}")
        machine.set_control(satp=tables.satp | 5 << 44)
        machine.enter(SUPERVISOR, VIRTUAL)
        machine.cpu.x[11], machine.cpu.x[13] = address, 5
        run(machine, 1)
        assert machine.cpu.x[10] == 1
        tables.map(address, DATA + PAGE, ALL)
        run(machine, 2)
        assert machine.cpu.x[10] == 2, fence


def test_a_fence_of_a_page_reaches_all_of_a_large_one(machine):
    tables = PageTables(machine.memory)
    address = VIRTUAL + (1 << 29)
    tables.map(VIRTUAL, CODE, ALL)
    tables.map(address, RAM, ALL, level=1)
    machine.write(CODE, f"{LOAD}\nsfence.vma a2, zero\n{LOAD}")
    machine.set_control(satp=tables.satp)
    machine.enter(SUPERVISOR, VIRTUAL)
    machine.cpu.x[11], machine.cpu.x[12] = address + DATA - RAM, address
    run(machine, 1)
    tables.map(address, RAM, 0, level=1)
    run(machine, 2)
    assert trap(machine) == (LOAD_FAULT, VIRTUAL + 8, address + DATA - RAM)


def test_address_spaces_do_not_mix(machine):
    """More of them than are remembered, in turns."""
    spaces = []
    for number in range(6):
        tables = PageTables(machine.memory, root=RAM + 0x20000 + number * 0x8000)
        tables.map(VIRTUAL, CODE, ALL)
        tables.map(VIRTUAL + PAGE, DATA + number * PAGE, ALL)
        machine.memory.write(DATA + number * PAGE, bytes([number + 1]) + bytes(7))
        spaces.append(tables.satp | number << 44)
    machine.write(CODE, f"csrrw zero, satp, a3\n{LOAD}")
    machine.cpu.x[11] = VIRTUAL + PAGE
    for number in (0, 1, 2, 3, 0, 4, 5, 1, 0, 3):
        machine.set_control(satp=spaces[0])
        machine.enter(SUPERVISOR, VIRTUAL)
        machine.cpu.x[13] = spaces[number]
        run(machine, 2)
        assert machine.cpu.x[10] == number + 1


def test_switching_translation_on_counts_from_the_next_instruction(machine):
    tables = PageTables(machine.memory)
    tables.map(CODE, CODE + PAGE, ALL)
    machine.write(CODE, "csrrw zero, satp, a3\naddi a0, a0, 1")
    machine.write(CODE + PAGE, "addi a0, a0, 100\naddi a0, a0, 50")
    machine.enter(SUPERVISOR)
    machine.cpu.x[13] = tables.satp
    run(machine, 2)
    assert machine.cpu.x[10] == 50


def test_a_user_program_that_calls_and_returns(translated):
    """The way that system calls go, many times: nothing of one mode is taken for the other's."""
    translated.write(CODE, "addi a0, a0, 1\necall\njal zero, loop", loop=CODE)
    translated.write(
        CODE + 0x400,
        "csrrw sp, sscratch, sp\ncsrrs t0, sepc, zero\naddi t0, t0, 4\ncsrrw zero, sepc, t0\n"
        "sd a0, 0(a1)\ncsrrw sp, sscratch, sp\nsret",
    )
    address = VIRTUAL + (1 << 29)
    translated.tables.map(address, DATA, ALL)
    translated.cpu.x[11] = address
    translated.set_control(satp=translated.tables.satp)
    translated.enter(USER_MODE, VIRTUAL + PAGE, medeleg=0xB3FF, stvec=VIRTUAL + 0x400)
    run(translated, 1000)
    assert translated.cpu.x[10] == 100
    assert translated.memory.read(DATA, 1) == b"\x64"


# Protection of physical memory ------------------------------------------------------------------------------


def test_without_entries_only_machine_mode_has_access(machine):
    machine.write(CODE, LOAD)
    machine.cpu.x[11] = DATA
    machine.enter(MACHINE, pmpcfg0=0)
    run(machine, 1)
    machine.enter(SUPERVISOR)
    machine.set_control(pmpcfg0=0)
    run(machine, 1)
    assert trap(machine) == (1, CODE, CODE)


def test_entries_in_their_order(machine):
    """The first page of DATA only for reading, the second for nobody but M-mode, the rest open."""
    machine.write(CODE, f"{LOAD}\n{STORE}")
    entries = {
        "pmpaddr0": DATA >> 2 | 0x1FF, "pmpaddr1": DATA + PAGE >> 2, "pmpaddr2": DATA + 2 * PAGE >> 2,
        "pmpaddr3": (1 << 54) - 1, "pmpcfg0": 0x1F_08_00_19,
    }  # fmt: skip
    for page, load, store in ((0, 0, 7), (1, 5, 7), (2, 0, 0)):
        for pc, cause in ((CODE, load), (CODE + 4, store)):
            machine.enter(SUPERVISOR, pc, mcause=0)
            machine.set_control(**entries)
            machine.cpu.x[11] = DATA + page * PAGE
            run(machine, 1)
            assert machine.control("mcause") == cause, (page, pc)


def test_a_locked_entry_binds_machine_mode_and_stays(machine):
    machine.write(
        CODE, f"csrrw zero, pmpaddr0, zero\ncsrrw zero, pmpcfg0, zero\ncsrrs a0, pmpcfg0, zero\n{STORE}"
    )
    machine.enter(MACHINE)
    machine.set_control(pmpaddr0=DATA >> 2 | 0x1FF, pmpcfg0=0x99)
    machine.cpu.x[11] = DATA
    run(machine, 4)
    assert machine.cpu.x[10] == 0x99
    assert trap(machine) == (7, CODE + 12, DATA)


def test_the_grain_of_protection_is_a_page(machine):
    machine.write(CODE, "csrrw zero, pmpaddr0, a0\ncsrrs a1, pmpaddr0, zero")
    machine.enter(MACHINE, pmpcfg0=0)
    machine.set_control(pmpcfg0=0)
    machine.cpu.x[10] = (1 << 64) - 1
    run(machine, 2)
    assert machine.cpu.x[11] == (1 << 54) - (1 << 10)


def test_page_tables_are_protected_too(translated):
    translated.set_control(satp=translated.tables.satp)
    translated.enter(SUPERVISOR, VIRTUAL)
    root = translated.tables.root
    translated.set_control(pmpaddr0=root >> 2 | 0x1FF, pmpcfg0=0x1F18, pmpaddr1=OPEN_PMP["pmpaddr0"])
    run(translated, 1)
    assert trap(translated) == (1, VIRTUAL, VIRTUAL)


# The rest ---------------------------------------------------------------------------------------------------


def test_a_block_is_zeroed(machine):
    machine.write(CODE, "cbo.zero (a0)")
    machine.enter(MACHINE)
    machine.memory.write(DATA, b"\xff" * 256)
    machine.cpu.x[10] = DATA + 100
    run(machine, 1)
    assert machine.memory.read(DATA, 256) == b"\xff" * 64 + bytes(64) + b"\xff" * 128


def test_there_are_no_debug_triggers(machine):
    """How firmware finds out: tinfo is 1 where there is no trigger (Debug Specification, tinfo)."""
    machine.write(CODE, "csrrw a0, tselect, a1\ncsrrs a2, tinfo, zero\ncsrrs a3, tdata1, zero")
    machine.enter(MACHINE)
    run(machine, 3)
    assert machine.cpu.x[12:14] == [1, 0]


def test_control_registers_by_name(machine):
    machine.cpu.system.set_control("mhartid", 3)
    assert machine.cpu.system.control("mhartid") == 3
    with pytest.raises(UsageError, match="sstatus is no control register with a value of its own"):
        machine.cpu.system.control("sstatus")


def test_changed_code_is_seen(machine):
    """The second time another instruction is there; the page has been translated by then."""
    machine.write(CODE, "addi a0, a0, 1\nsw a2, 0(a1)\nfence.i\njal zero, start", start=CODE)
    machine.enter(MACHINE)
    machine.cpu.x[11], machine.cpu.x[12] = CODE, 0x06450513  # addi a0, a0, 100
    run(machine, 8)
    assert machine.cpu.x[10] == 101


def test_execute_only_pages_can_be_executed(machine):
    tables = PageTables(machine.memory)
    tables.map(VIRTUAL, CODE, VALID | EXECUTE | ACCESSED)
    machine.write(CODE, "addi a0, a0, 1")
    machine.set_control(satp=tables.satp)
    machine.enter(SUPERVISOR, VIRTUAL)
    run(machine, 1)
    assert machine.cpu.x[10] == 1


def test_tiers_of_machines():
    memory = MachineMemory()
    assert isinstance(make_executor(ISA, memory), MachineTranslator)
    assert isinstance(make_executor(ISA, memory, tier="region"), MachineTranslator)
    assert not isinstance(make_executor(ISA, memory, tier="stencil"), MachineTranslator)
    with pytest.raises(UnsupportedError, match="addresses are translated"):
        Translator(ISA, memory)
    with pytest.raises(UsageError, match="need a MachineMemory"):
        make_executor(ISA, FlatMemory(), tier="interpreter")
