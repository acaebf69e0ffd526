"""Regions of translated code see what the interpreter would see, whatever happens to code and pages."""

import threading

import pytest
from tests.cpu.system_machines import (
    ALL,
    CODE,
    DATA,
    HANDLER,
    ISA,
    MACHINE,
    PAGE,
    RAM,
    SIZE,
    SUPERVISOR,
    USER,
    USER_MODE,
    PageTables,
    SystemMachine,
)

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.machine_translator import MachineTranslator
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.stencil_space import StencilSpace
from anyvirt.isa.riscv64_system import riscv64_system

VIRTUAL, OTHER, VARIABLES = 0x4000_0000, 0x4800_0000, 0x5000_0000
LONG = 60
WAIT = "csrrwi zero, mie, 0\nwfi"
"""What a run ends with, in M-mode."""


class Machine(SystemMachine):
    """With page tables, and code that can be compiled."""

    def __init__(self, make):
        super().__init__(make)
        self.tables = PageTables(self.memory)
        self.tables.map(VIRTUAL, CODE, ALL)
        for page in range(4):
            self.tables.map(VARIABLES + page * PAGE, DATA + page * PAGE, ALL)
        self.write(HANDLER, WAIT)

    def begin(self, pc=VIRTUAL, mode=SUPERVISOR, **control):
        """Be at a virtual address, with the handler of traps to M-mode at HANDLER."""
        self.enter(mode, pc, **{"satp": self.tables.satp, "mtvec": HANDLER} | control)

    def forget(self):
        """The page tables have changed; the reference looks at them each time."""
        if isinstance(self.cpu, MachineTranslator):
            self.cpu.flush_tlb()

    def compile(self, *addresses, counted=True):
        """Have the regions at addresses, if this executor has any."""
        if isinstance(self.cpu, MachineTranslator):
            pc = self.cpu.pc
            self.cpu.translate_now(addresses, counted=counted)
            assert self.cpu.compile_now(addresses, counted=counted) == len(addresses)
            self.cpu.pc = pc

    def leads_into_region(self, pc):
        """Whether control that comes to a physical address goes on in a region."""
        regions = self.cpu._regions
        number = self.memory.mapping_at(pc).page_number(pc)
        assert regions.code.space is self.cpu._view._code
        shift = regions.code.space.layout.shift
        record = regions.code.space.page(number) + (pc % PAGE << shift)
        return StencilSpace.is_translated(record) and regions.at(number * PAGE + pc % PAGE) is not None


def compare(act):
    """The outcome of what `act` does with a machine, which is the same in regions and for the reference."""
    outcomes = []
    for make in (MachineTranslator, ReferenceExecutor):
        machine = Machine(make)
        stop = act(machine)
        outcomes.append(machine.outcome(stop))
    assert outcomes[0] == outcomes[1]
    return outcomes[0]


def run(machine, instructions):
    stop = None
    end = machine.cpu.instructions + instructions
    while machine.cpu.instructions < end:
        stop = machine.cpu.run(end - machine.cpu.instructions)
        if stop.reason is StopReason.IDLE:
            break
    return stop


LOOP = """
loop:
    ld a1, 0(s0)
    add a2, a2, a1
    sd a2, 8(s0)
    addi a0, a0, 1
    bne a0, a3, loop
    ecall
"""


@pytest.mark.parametrize("mode", [SUPERVISOR, USER_MODE])
@pytest.mark.parametrize("budget", [*range(1, 16), 1000])
def test_budgets_end_exactly(mode, budget):
    def act(machine):
        machine.write(CODE, LOOP)
        for page, physical in ((VIRTUAL, CODE), (VARIABLES, DATA)):
            machine.tables.map(page, physical, ALL | (USER if mode == USER_MODE else 0))
        machine.memory.write(DATA, b"\x07")
        machine.begin(mode=mode)
        machine.cpu.x[8], machine.cpu.x[13] = VARIABLES, 100
        machine.compile(VIRTUAL)
        return run(machine, budget)

    compare(act)


def test_a_region_serves_every_address_of_its_page():
    def act(machine):
        machine.write(CODE, "loop:\nauipc a1, 0\nadd a2, a2, a1\naddi a0, a0, 1\nbne a0, a3, loop\necall")
        machine.tables.map(OTHER, CODE, ALL)
        machine.begin()
        machine.cpu.x[13] = 50
        machine.compile(VIRTUAL)
        machine.begin(OTHER)
        return run(machine, 1000)

    assert compare(act)["x"][11] == hex(OTHER)


def test_regions_stay_when_the_store_of_decoded_code_is_given_back():
    def act(machine):
        machine.write(CODE, LOOP)
        machine.memory.write(DATA, b"\x07")
        machine.begin()
        machine.cpu.x[8], machine.cpu.x[13] = VARIABLES, 100
        machine.compile(VIRTUAL)
        run(machine, 37)
        machine.memory.discard_code()
        if isinstance(machine.cpu, MachineTranslator):
            assert machine.leads_into_region(CODE)
        return run(machine, 1000)

    assert compare(act)["x"][10] == hex(100)


CALLS = """
loop:
    jalr ra, 0(s1)
    add a2, a2, a1
    addi a0, a0, 1
    bne a0, a3, loop
    ecall
"""


@pytest.mark.parametrize("change", ["before", "while it runs"])
def test_a_page_of_a_region_that_is_mapped_elsewhere(change):
    """A region of two pages; then the second one is another page, which has other code."""

    def act(machine):
        calls = CALLS
        if change != "before":
            calls = calls.replace("loop:", "loop:\nbeq a0, a4, remap\non:")
            calls += "remap:\nsd a5, 0(s2)\nsfence.vma zero, zero\njal zero, on"
        machine.write(CODE, calls)
        machine.write(CODE + PAGE, "addi a1, zero, 3\njalr zero, 0(ra)")
        machine.write(CODE + 2 * PAGE, "addi a1, zero, 5\njalr zero, 0(ra)")
        machine.tables.map(VIRTUAL + PAGE, CODE + PAGE, ALL)
        tables = machine.tables.place(VIRTUAL + PAGE)
        machine.tables.map(VIRTUAL + 8 * PAGE, tables & -PAGE, ALL)
        machine.begin()
        machine.cpu.x[9], machine.cpu.x[13], machine.cpu.x[14] = VIRTUAL + PAGE, 40, 20
        machine.cpu.x[18] = VIRTUAL + 8 * PAGE + tables % PAGE
        machine.cpu.x[15] = CODE + 2 * PAGE >> 2 | ALL
        machine.compile(VIRTUAL + PAGE, VIRTUAL)
        if change == "before":
            machine.tables.map(VIRTUAL + PAGE, CODE + 2 * PAGE, ALL)
            machine.forget()
        return run(machine, 2000)

    expected = 40 * 5 if change == "before" else 20 * 3 + 20 * 5
    assert compare(act)["x"][12] == hex(expected)


def test_what_crosses_a_page_is_fetched_from_the_page_that_is_there():
    """The second half of an instruction is in a page that is mapped elsewhere, and then nowhere."""

    def act(machine):
        code = riscv64_system.assemble("addi a1, a1, 256\naddi a0, a0, 1\nbne a0, a3, start", 0, {"start": 0})
        machine.write(CODE, "addi a1, a1, 0")
        machine.memory.write(CODE + PAGE - 2, code)
        machine.memory.write(CODE + 2 * PAGE, bytes([code[2], 0x20]) + code[4:])
        machine.tables.map(VIRTUAL + PAGE, CODE + PAGE, ALL)
        machine.begin(VIRTUAL + PAGE - 2)
        machine.cpu.x[13] = 30
        machine.compile(VIRTUAL + PAGE + 2)
        run(machine, 40)
        machine.tables.map(VIRTUAL + PAGE, CODE + 2 * PAGE, ALL)
        machine.forget()
        run(machine, 30)
        machine.tables.map(VIRTUAL + PAGE, CODE + PAGE, 0)
        machine.forget()
        return run(machine, 50)

    compare(act)


def test_a_straddling_instruction_within_a_region():
    def act(machine):
        start = CODE + PAGE - 10
        text = "loop:\naddi a1, a1, 1\nadd a2, a2, a1\nc.nop\nc.nop\naddi a0, a0, 1\nbne a0, a3, loop\necall"
        machine.write(start - 2, text)
        machine.tables.map(VIRTUAL + PAGE, CODE + PAGE, ALL)
        machine.begin(VIRTUAL + PAGE - 12)
        machine.cpu.x[13] = 60
        machine.compile(VIRTUAL + PAGE - 12)
        run(machine, 100)
        machine.tables.map(VIRTUAL + PAGE, CODE + PAGE, 0)
        machine.forget()
        return run(machine, 100)

    assert compare(act)["csr"]["mcause"] == hex(12)


def test_a_page_fault_in_the_middle_of_a_region():
    def act(machine):
        machine.write(CODE, LOOP.replace("addi a0", "addi s0, s0, 64\naddi a0"))
        machine.tables.map(VARIABLES + PAGE, DATA + PAGE, 0)
        machine.begin()
        machine.cpu.x[8], machine.cpu.x[13] = VARIABLES, 1000
        machine.compile(VIRTUAL)
        return run(machine, 5000)

    outcome = compare(act)
    assert outcome["csr"]["mcause"] == hex(13)
    assert outcome["csr"]["mtval"] == hex(VARIABLES + PAGE)


def test_code_that_a_region_writes_is_seen_at_once():
    """In each round the next instruction becomes another one."""

    def act(machine):
        machine.write(CODE, LOOP.replace("ld a1, 0(s0)", "sw a4, 4(s1)\naddi a1, zero, 1\nxor a4, a4, a5"))
        machine.begin()
        machine.cpu.x[8], machine.cpu.x[9], machine.cpu.x[13] = VARIABLES, VIRTUAL, 100
        one, two = (
            int.from_bytes(riscv64_system.assemble(f"addi a1, zero, {number}"), "little") for number in (2, 9)
        )
        machine.cpu.x[14], machine.cpu.x[15] = one, one ^ two
        machine.compile(VIRTUAL)
        return run(machine, 1000)

    assert compare(act)["x"][12] == hex(50 * 11)


def test_code_that_python_writes_is_seen():
    machine = Machine(MachineTranslator)
    machine.write(CODE, LOOP)
    machine.begin()
    machine.cpu.x[8], machine.cpu.x[13] = VARIABLES, 100
    machine.compile(VIRTUAL)
    assert machine.leads_into_region(CODE)
    machine.write(CODE + 4, "addi a2, a2, 2")
    assert not machine.leads_into_region(CODE)
    run(machine, 1000)
    assert machine.cpu.x[12] == 200


@pytest.mark.parametrize("asid", [0, 1])
def test_address_spaces_with_different_code_at_an_address(asid):
    """The loop is in a page that both have; what it calls is not."""

    def act(machine):
        machine.write(
            CODE,
            "loop:\ncsrrw zero, satp, s3\njalr ra, 0(s1)\nadd a2, a2, a1\ncsrrw zero, satp, s4\n"
            "jalr ra, 0(s1)\nadd a2, a2, a1\naddi a0, a0, 1\nbne a0, a3, loop\necall",
        )
        second = PageTables(machine.memory, root=machine.tables.root + 0x8000)
        for tables, page, number in ((machine.tables, 1, 3), (second, 2, 100)):
            tables.map(VIRTUAL, CODE, ALL | 1 << 5)
            tables.map(OTHER, CODE + page * PAGE, ALL)
            machine.write(CODE + page * PAGE, f"addi a1, zero, {number}\naddi a1, a1, 1\njalr zero, 0(ra)")
        machine.begin()
        machine.cpu.x[9], machine.cpu.x[13] = OTHER, 20
        machine.cpu.x[19] = machine.tables.satp | asid << 44
        machine.cpu.x[20] = second.satp | (2 * asid) << 44
        machine.compile(OTHER, VIRTUAL + 4, VIRTUAL + 16)
        machine.begin(OTHER, satp=second.satp)
        machine.compile(OTHER)
        machine.begin()
        return run(machine, 2000)

    assert compare(act)["x"][12] == hex(20 * (4 + 101))


@pytest.mark.parametrize("state", [0, 0x2000, 0x4000, 0x6000])
def test_floating_point_has_its_rules(state):
    """It may be off, and what changes something makes it dirty."""

    def act(machine):
        machine.write(
            CODE,
            "loop:\nfld f1, 0(s0)\nfadd.d f2, f2, f1\nfsd f2, 8(s0)\naddi a0, a0, 1\nbne a0, a3, loop\necall",
        )
        machine.begin(mstatus=0xA00000000 | state)
        machine.memory.write(DATA, (0x3FF8 << 48).to_bytes(8, "little"))
        machine.cpu.x[8], machine.cpu.x[13] = VARIABLES, 10
        machine.compile(VIRTUAL)
        return run(machine, 200)

    outcome = compare(act)
    assert outcome["csr"]["mcause"] == hex(9 if state else 2)


def test_rounding_modes():
    """Regions are for one mode; another one has others."""

    def act(machine):
        machine.write(
            CODE, "loop:\nfdiv.d f2, f1, f3\nfadd.d f4, f4, f2\naddi a0, a0, 1\nbne a0, a3, loop\necall"
        )
        machine.begin(mstatus=0xA00006000)
        machine.cpu.f[1], machine.cpu.f[3] = 0x3FF8 << 48, 0x4008 << 48 | 3
        machine.cpu.x[13] = 20
        machine.compile(VIRTUAL)
        run(machine, 40)
        machine.cpu.fcsr = 3 << 5
        return run(machine, 400)

    compare(act)


def test_the_timer_interrupts_a_loop_at_exactly_one_instruction():
    def act(machine):
        machine.write(CODE, LOOP)
        machine.begin(mie=1 << 5, stimecmp=3, menvcfg=1 << 63, mstatus=0xA00000002)
        machine.cpu.x[8] = VARIABLES
        machine.compile(VIRTUAL)
        return run(machine, 3000)

    outcome = compare(act)
    assert outcome["csr"]["mcause"] == hex(1 << 63 | 5)


def test_a_run_without_budget_is_interrupted_in_a_loop():
    machine = Machine(MachineTranslator)
    machine.write(CODE, LOOP)
    machine.begin(mie=1 << 7)
    machine.cpu.x[8] = VARIABLES
    machine.compile(VIRTUAL, counted=False)
    timer = threading.Timer(0.05, machine.cpu.set_interrupt, (7, True))
    timer.start()
    assert machine.cpu.run().reason is StopReason.IDLE
    timer.join()
    assert machine.control("mcause") == 1 << 63 | 7
    assert machine.control("mepc") in range(VIRTUAL, VIRTUAL + 20)
    assert machine.cpu.x[10] > 0


def test_a_breakpoint_in_a_region_is_met():
    machine = Machine(MachineTranslator)
    machine.write(CODE, LOOP)
    machine.enter(MACHINE, CODE, mtvec=HANDLER)
    machine.cpu.x[8], machine.cpu.x[13] = DATA, 100
    machine.compile(CODE)
    assert run(machine, 52).reason is StopReason.BUDGET
    machine.cpu.breakpoints.add(CODE + 8)
    stop = machine.cpu.run(100)
    assert (stop.reason, stop.pc) == (StopReason.HOOK, CODE + 8)
    assert machine.cpu.compile_now([CODE], counted=True)
    machine.cpu.pc = CODE
    stop = machine.cpu.run(100)
    assert (stop.reason, stop.pc) == (StopReason.HOOK, CODE + 8)


def run_until(machine, condition):
    """Run a loop until something is true of its regions; then a timer's interrupt ends it."""

    def wait():
        pause = threading.Event()
        for _ in range(LONG * 50):
            regions = getattr(machine.cpu, "_regions", None)
            if regions is not None and condition(regions.statistics):
                break
            pause.wait(0.02)
        machine.cpu.set_interrupt(7, True)

    watcher = threading.Thread(target=wait)
    watcher.start()
    assert machine.cpu.run().reason is StopReason.IDLE
    watcher.join(LONG)
    assert condition(machine.cpu._regions.statistics)


def test_what_is_hot_becomes_a_region_in_the_background_and_is_kept():
    """The next machine has it from disk, at another address."""
    for address, condition in (
        (VIRTUAL, lambda statistics: statistics.published),
        (OTHER, lambda statistics: statistics.from_disk),
    ):
        machine = Machine(MachineTranslator)
        machine.write(CODE, LOOP)
        machine.tables.map(OTHER, CODE, ALL)
        machine.begin(address, mie=1 << 7)
        machine.cpu.x[8] = VARIABLES
        run_until(machine, condition)
        assert machine.leads_into_region(CODE)


def test_a_loop_that_no_region_can_hold_becomes_several(monkeypatch):
    """Without a jump to what did not fit, that would be stencils for ever; it goes on in another page."""
    for module in ("profile", "paged_profile"):
        for name in ("SMALLEST_LIMIT", "LARGEST_LIMIT"):
            monkeypatch.setattr(f"anyvirt.cpu.{module}.{name}", 16)
    machine = Machine(MachineTranslator)
    machine.tables.map(VIRTUAL + PAGE, CODE + 2 * PAGE, ALL)
    begin, length = PAGE - 128, 80
    body = "loop:\n" + "addi a0, a0, 1\n" * length + "bne a1, a3, loop\necall"
    code = riscv64_system.assemble(body)
    machine.memory.write(CODE + begin, code[:128])
    machine.memory.write(CODE + 2 * PAGE, code[128:])
    machine.begin(VIRTUAL + begin, mie=1 << 7)
    machine.cpu.x[13] = 1
    parts = [CODE + begin, CODE + begin + 64, CODE + 2 * PAGE, CODE + 2 * PAGE + 64]
    run_until(machine, lambda _: all(map(machine.leads_into_region, parts)))


def test_nothing_is_compiled_for_a_guest_that_is_in_new_code_all_the_time(monkeypatch):
    cpu = Machine(MachineTranslator).cpu
    cpu._select(False)
    profile, asked = cpu._known_profile(), []
    monkeypatch.setattr(profile, "_ask", lambda rounding: bool(asked.append(rounding)))
    for looks, news, expected in ((60, True, False), (60, False, True), (60, True, False)):
        for _ in range(looks):
            profile.note_news(news)
            profile.serve(0)
        asked.clear()
        profile.serve(0)
        assert bool(asked) is expected


# Several harts ----------------------------------------------------------------------------------------------


class Bell:
    """A store interrupts the first of two CPUs; what is stored says whether, or no more."""

    def __init__(self, cpu):
        self.cpu = cpu

    def read(self, offset, size):
        return 0

    def write(self, offset, size, value):
        self.cpu.set_interrupt(3, bool(value))


BELL, FLAG = 0x200_0000, DATA + 0x100


@pytest.mark.parametrize("what", ["mapping", "code"])
def test_a_remote_fence_reaches_a_hart_in_a_region(what):
    """One hart is in a loop of two pages; another one changes what the second is, and interrupts it."""
    memory = MachineMemory()
    memory.add_ram(RAM, SIZE)
    harts = [MachineTranslator(ISA, memory) for _ in range(2)]
    memory.add_mmio(BELL, 8, Bell(harts[0]))
    first, second = Machine.__new__(Machine), Machine.__new__(Machine)
    for machine, cpu in ((first, harts[0]), (second, harts[1])):
        machine.memory, machine.cpu = memory, cpu
        cpu.system.set_time(0)
    first.tables = PageTables(memory)
    for page in range(2):
        first.tables.map(VIRTUAL + page * PAGE, CODE + page * PAGE, ALL)
    first.tables.map(VARIABLES, DATA, ALL)
    first.write(CODE, "loop:\njalr ra, 0(s1)\nadd a2, a2, a1\nbne a1, a3, loop\necall")
    first.write(CODE + PAGE, "addi a1, zero, 3\njalr zero, 0(ra)")
    first.write(CODE + 2 * PAGE, "addi a1, zero, 5\njalr zero, 0(ra)")
    # Traps of the first hart: an interrupt is answered by a fence, anything else is its end.
    first.write(
        HANDLER,
        "csrrw t0, mcause, zero\nbge t0, zero, end\nsfence.vma zero, zero\nfence.i\nsd zero, 0(s2)\nmret\n"
        "end:\n" + WAIT,
    )
    first.begin(mie=1 << 3)
    harts[0].x[9], harts[0].x[13], harts[0].x[18] = VIRTUAL + PAGE, 5, BELL
    first.compile(VIRTUAL + PAGE, VIRTUAL, counted=False)
    first.write(HANDLER + 0x400, "sd a0, 0(s0)\nfence\nsd a1, 0(s1)\n" + WAIT)
    second.enter(MACHINE, HANDLER + 0x400, mtvec=HANDLER)
    if what == "mapping":
        harts[1].x[8] = first.tables.place(VIRTUAL + PAGE)
        harts[1].x[10] = CODE + 2 * PAGE >> 2 | ALL
    else:
        harts[1].x[8] = CODE + PAGE
        harts[1].x[10] = int.from_bytes(memory.read(CODE + 2 * PAGE, 8), "little")
    harts[1].x[9], harts[1].x[11] = BELL, 1
    stops = []
    thread = threading.Thread(target=lambda: stops.append(harts[0].run()))
    thread.start()
    while not harts[0]._slots[6]:
        # Not in compiled code yet.
        thread.join(0.001)
    assert harts[1].run().reason is StopReason.IDLE
    thread.join(LONG)
    assert not thread.is_alive()
    assert stops[0].reason is StopReason.IDLE
    assert harts[0].x[11] == 5
    assert first.control("mcause") == 0
    assert harts[0].x[12] % 3 == 5 % 3
