"""Every instruction form, with random operands and registers, in the interpreter tier and the reference.

And that an instruction which cannot be executed changes nothing.
"""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.cpu.executor import Access, StopReason
from anyvirt.isa.riscv32 import riscv32
from anyvirt.isa.riscv64 import riscv64

from .machines import CODE, DATA, PAGE, READ_ONLY, Start, both, starts

EBREAK = (0x00100073).to_bytes(4, "little")
DESCRIPTIONS = {"riscv64": riscv64, "riscv32": riscv32}
# What these give depends on time, or in counting runs on what was counted before.
UNREPEATABLE = {0xC00, 0xC01, 0xC02, 0xC80, 0xC81, 0xC82}
# These may go anywhere, so a run of theirs needs a budget.
CONTROL = {"jal", "jalr", "jump_register", "beq", "bne", "blt", "bge", "bltu", "bgeu"}
FAULTS = (StopReason.ILLEGAL_INSTRUCTION, StopReason.ACCESS_FAULT, StopReason.MISALIGNED)

FORMS = [
    pytest.param(isa, pattern, id=f"{isa.name}-{pattern.mnemonic}")
    for isa in DESCRIPTIONS.values()
    for pattern in isa.patterns
]
MEMORY_FORMS = [form for form in FORMS if "(" in form.values[1].assembly and "jalr" not in form.id]
ATOMIC_FORMS = [form for form in FORMS if form.values[1].mnemonic.startswith(("lr.", "sc.", "amo"))]


@pytest.fixture(scope="module")
def machines():
    return {name: both(name) for name in DESCRIPTIONS}


def encodings(isa, pattern):
    """Random encodings that the pattern decodes."""
    free = ~pattern.mask & ((1 << 8 * pattern.length) - 1)
    return (
        st.integers(0, (1 << 8 * pattern.length) - 1)
        .map(lambda bits: pattern.match | bits & free)
        .filter(lambda word: isa.find(word, pattern.length) is pattern)
    )


@pytest.mark.parametrize(("isa", "pattern"), FORMS)
def test_one_instruction(machines, isa, pattern):
    compiled, reference = machines[isa.name]

    @settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
    @given(encodings(isa, pattern), starts)
    def check(word, start):
        if pattern.decode(word).get("csr") in UNREPEATABLE:
            return
        code = word.to_bytes(pattern.length, "little") + EBREAK
        for budget in (1,) if pattern.semantics.__name__ in CONTROL else (1, None):
            outcomes = []
            for machine in (compiled, reference):
                machine.prepare(start, code)
                outcomes.append(machine.outcome(machine.cpu.run(budget)))
            assert outcomes[0] == outcomes[1], isa.disassemble(word, pattern.length, CODE)

    check()


def example(isa, pattern, generator, **wanted):
    """A random encoding of a form in which operands have the wanted values and `rs1` is not register zero."""
    for _ in range(20_000):
        word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
        values = pattern.decode(word)
        if (
            isa.find(word, pattern.length) is pattern
            and values.get("rs1") != 0
            and all(values[name] == value for name, value in wanted.items())
        ):
            return word
    raise AssertionError(f"no {pattern.assembly} with {wanted}")


def stop_and_changes(machine, start, word, length, registers, reserved=None):
    """Run one instruction: why it stopped, and what is different afterwards."""
    machine.prepare(start, word.to_bytes(length, "little") + EBREAK)
    for number, value in registers.items():
        machine.cpu.x[number] = value & machine.mask
    if reserved is not None:
        machine.cpu.set_state("reservation_address", reserved)
    before = machine.outcome(None)
    stop = machine.cpu.run()
    after = machine.outcome(None)
    return stop, [name for name in before if before[name] != after[name]]


def data_size(pattern):
    """Bytes that a load, store or atomic operation accesses."""
    name = pattern.mnemonic.removeprefix("c.").removesuffix("sp").split(".")
    letters = name[1] if name[0][:3] in ("amo", "lr", "sc") else name[0].removeprefix("f")
    return {"b": 1, "h": 2, "w": 4, "d": 8}[letters.removeprefix("l").removeprefix("s").removesuffix("u")[0]]


def expected_access(pattern):
    """What the instruction wants to do with memory."""
    name = pattern.mnemonic.removeprefix("c.").removeprefix("f")
    return Access.READ if name.startswith("l") else Access.WRITE


@pytest.mark.parametrize(("isa", "pattern"), MEMORY_FORMS)
def test_an_access_fault_changes_nothing(machines, isa, pattern):
    generator = random.Random(pattern.assembly)
    word = example(isa, pattern, generator)
    values, size = pattern.decode(word), data_size(pattern)
    access = expected_access(pattern)
    places = [0x5000, DATA + 4 * PAGE]
    if access == Access.WRITE:
        places.append(READ_ONLY + 64)
    if size > 1 and not pattern.mnemonic.startswith(("lr.", "sc.", "amo")):
        # The first bytes could be accessed: what crosses into the next page is all or nothing.
        places.append(DATA + 2 * PAGE - size // 2 if access == Access.WRITE else READ_ONLY + PAGE - size // 2)
    for place in places:
        base = {values["rs1"]: place - values.get("imm", 0)}
        stops = []
        for machine in machines[isa.name]:
            # A store-conditional without a reservation stores nothing and cannot fault.
            stop, changed = stop_and_changes(
                machine, Start(place), word, pattern.length, base, reserved=place
            )
            assert (stop.reason, stop.access, stop.pc) == (StopReason.ACCESS_FAULT, access, CODE)
            assert changed == []
            stops.append(stop)
        assert stops[0] == stops[1]


@pytest.mark.parametrize(("isa", "pattern"), ATOMIC_FORMS)
def test_a_misaligned_atomic_operation_changes_nothing(machines, isa, pattern):
    word = example(isa, pattern, random.Random(pattern.assembly))
    rs1 = pattern.decode(word)["rs1"]
    for offset in range(1, data_size(pattern)):
        for machine in machines[isa.name]:
            stop, changed = stop_and_changes(machine, Start(7), word, 4, {rs1: DATA + 16 + offset})
            assert (stop.reason, stop.pc) == (StopReason.MISALIGNED, CODE)
            assert stop.address == DATA + 16 + offset
            assert changed == []


@pytest.mark.parametrize(("isa", "pattern"), [form for form in FORMS if "rm" in form.values[1].by_name])
def test_a_reserved_dynamic_rounding_mode_is_illegal_and_changes_nothing(machines, isa, pattern):
    word = example(isa, pattern, random.Random(pattern.assembly), rm=7)
    for mode in (5, 6, 7):
        start = Start(mode)
        start.fcsr = mode << 5
        for machine in machines[isa.name]:
            stop, changed = stop_and_changes(machine, start, word, 4, {})
            assert (stop.reason, stop.pc, changed) == (StopReason.ILLEGAL_INSTRUCTION, CODE, [])


@pytest.mark.parametrize("isa", DESCRIPTIONS.values(), ids=str)
@pytest.mark.parametrize(
    "text",
    ["csrrw a0, 0x123, a1", "csrrs a0, 0x300, a1", "csrrw a0, cycle, a1", "csrrs a0, time, a1",
     "csrrwi a0, instret, 1", "csrrci a0, 0x7ff, 3", "csrrs a0, 0x344, zero"],
)  # fmt: skip
def test_an_illegal_control_register_access_changes_nothing(machines, isa, text):
    word = int.from_bytes(isa.assemble(text), "little")
    for machine in machines[isa.name]:
        stop, changed = stop_and_changes(machine, Start(3), word, 4, {11: 5})
        assert (stop.reason, stop.pc, changed) == (StopReason.ILLEGAL_INSTRUCTION, CODE, [])


@pytest.mark.parametrize("isa", DESCRIPTIONS.values(), ids=str)
def test_encodings_that_do_not_exist_change_nothing(machines, isa):
    generator = random.Random(1)
    words = [(generator.getrandbits(32) | 3, 4) for _ in range(1500)]
    words += [(generator.getrandbits(16) & ~3 | generator.randrange(3), 2) for _ in range(1500)]
    illegal = [(word, length) for word, length in words if isa.find(word, length) is None][:300]
    assert len(illegal) == 300
    for word, length in illegal:
        for machine in machines[isa.name]:
            stop, changed = stop_and_changes(machine, Start(word), word, length, {})
            assert (stop.reason, stop.pc, changed) == (StopReason.ILLEGAL_INSTRUCTION, CODE, [])


@pytest.mark.parametrize("isa", DESCRIPTIONS.values(), ids=str)
def test_a_jump_to_where_there_is_no_code_has_happened(machines, isa):
    """The jump itself is fine (targets of two bytes exist with C); the fetch at its target is what fails."""
    word = int.from_bytes(isa.assemble("jalr a0, 2(a1)"), "little")
    for target in (0x5000, DATA, 0xFFFFFFF0):
        for machine in machines[isa.name]:
            stop, changed = stop_and_changes(machine, Start(1), word, 4, {11: target - 2})
            assert (stop.reason, stop.access) == (StopReason.ACCESS_FAULT, Access.EXECUTE)
            assert (stop.pc, stop.address, sorted(changed)) == (target, target, ["pc", "x"])
            assert machine.cpu.x[10] == CODE + 4


def test_addresses_of_rv32_wrap(machines):
    word = int.from_bytes(riscv32.assemble("lw a0, 8(a1)"), "little")
    for machine in machines["riscv32"]:
        start = Start(2)
        machine.prepare(start, word.to_bytes(4, "little") + EBREAK)
        machine.memory.map(0, PAGE, 3)
        machine.memory.write(4, bytes.fromhex("fdffffff"))
        machine.cpu.x[11] = 0xFFFFFFFC
        assert machine.cpu.run().reason == StopReason.BREAKPOINT
        assert machine.cpu.x[10] == 0xFFFFFFFD
        machine.memory.unmap(0, PAGE)
