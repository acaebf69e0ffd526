"""Floating-point state in regions: rounding modes that change, accrued exceptions, many live registers."""

import random

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.translator import Translator
from anyvirt.isa.riscv64 import riscv64

from .machines import CODE, DATA, PAGE, Machine, Start
from .regional import publish

DYNAMIC = [
    "fadd.d f1, f2, f3", "fdiv.s f4, f5, f6", "fsqrt.d f7, f8", "fmadd.s f9, f10, f11, f12",
    "fcvt.w.d x5, f13", "fcvt.lu.s x6, f14", "fcvt.s.d f15, f16", "fcvt.d.lu f17, x7", "fcvt.s.l f18, x8",
]  # fmt: skip


def assemble(*lines):
    return b"".join(riscv64.assemble(line) for line in lines)


@pytest.fixture(scope="module")
def machines():
    return Machine(Translator), Machine(ReferenceExecutor)


def outcomes(machines, start, budget=None):
    """What both come to from the same state, with the code that is there."""
    result = []
    for machine in machines:
        machine.prepare(start, b"")
        result.append(machine.outcome(machine.cpu.run(budget)))
    return result


@pytest.mark.parametrize("compiled_for", range(8))
def test_a_region_is_right_in_any_rounding_mode(machines, compiled_for):
    generator = random.Random(compiled_for)
    code = assemble("addi x9, x9, 1", *DYNAMIC, "ebreak")
    for machine in machines:
        machine.prepare(Start(0), code)
    assert publish(machines[0].memory, "riscv64", CODE, counted=False, rounding=compiled_for)
    for mode in range(8):
        for _ in range(4):
            start = Start(generator.getrandbits(32))
            start.fcsr = mode << 5
            compiled, expected = outcomes(machines, start)
            assert compiled == expected, (mode, start)


def test_a_guest_may_change_the_rounding_mode_in_a_loop(machines):
    code = assemble(
        "addi x9, zero, 8",
        "addi x10, zero, 0",
        "csrrw x11, frm, x10",
        "fdiv.d f1, f2, f3",
        "fsd f1, 0(x12)",
        "addi x12, x12, 8",
        "addi x10, x10, 1",
        "addi x9, x9, -1",
        "bne x9, zero, -24",
        "ebreak",
    )
    for machine in machines:
        machine.prepare(Start(0), code)
    assert publish(machines[0].memory, "riscv64", CODE + 12, counted=False, rounding=0)
    start = Start(5)
    start.f[2], start.f[3], start.x[12] = 0x3FF0000000000000, 0x4008000000000000, DATA
    compiled, expected = outcomes(machines, start)
    assert compiled == expected
    assert compiled["stop"].reason == StopReason.ILLEGAL_INSTRUCTION
    assert compiled["x"][9] == 3


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("fault", ["load", "store", "none"])
def test_all_registers_are_put_back(machines, counted, fault):
    """More values than the host has registers, all of them changed, when an access fails."""
    lines = [f"addi x{number}, x{number}, {number}" for number in range(1, 31)]
    lines += [f"fadd.d f{number}, f{number}, f{(number + 1) % 32}" for number in range(32)]
    lines += {"load": ["ld x5, 0(x31)"], "store": ["fsd f3, 8(x31)"], "none": []}[fault]
    lines += [f"fmul.d f{number}, f{number}, f{(number + 7) % 32}" for number in range(32)]
    lines += [f"sub x{number}, x{number}, x{number + 1}" for number in range(1, 30)]
    code = assemble(*lines, f"bne x1, x1, {-4 * len(lines)}", "ebreak")
    for machine in machines:
        machine.prepare(Start(0), code)
    assert publish(machines[0].memory, "riscv64", CODE, counted=counted)
    for seed in range(5):
        start = Start(seed)
        start.fcsr &= 31
        start.x[31] = random.Random(seed).choice((DATA + 4 * PAGE, 0, 1 << 38, (1 << 64) - 1))
        compiled, expected = outcomes(machines, start, 10_000 if counted else None)
        assert compiled == expected
        assert (compiled["stop"].reason == StopReason.ACCESS_FAULT) == (fault != "none")


def test_exceptions_accrue_over_regions_and_the_interpreter(machines):
    code = assemble(
        "fdiv.d f1, f2, f3", "csrrs x5, fflags, zero", "fsqrt.d f4, f5", "csrrs x6, fcsr, zero",
        "csrrci x7, fflags, 8", "fadd.d f6, f7, f8", "csrrs x8, fflags, zero", "ebreak",
    )  # fmt: skip
    for machine in machines:
        machine.prepare(Start(0), code)
    for entry in (CODE, CODE + 8, CODE + 20):
        assert publish(machines[0].memory, "riscv64", entry, counted=False)
    for seed in range(40):
        start = Start(seed)
        start.fcsr &= 31
        compiled, expected = outcomes(machines, start)
        assert compiled == expected
