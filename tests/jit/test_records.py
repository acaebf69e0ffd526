"""Packing operands into records, and what instruction semantics may not ask for."""

import pytest

from anyvirt.isa.description import DescriptionError, InstructionSet
from anyvirt.isa.patterns import Handler
from anyvirt.isa.riscv64 import floating, integer, riscv64
from anyvirt.jit.frontend import Module
from anyvirt.jit.handlers import Features
from anyvirt.jit.interpreter import InterpreterTarget
from anyvirt.jit.layout import STATE_SIZE, StateLayout
from anyvirt.jit.records import ends_straight_line, operand_slots, sunk_operands
from anyvirt.jit.target import Target
from anyvirt.typed import TypedPythonError, u8, u16, u32, u64, u128


def length(parcel: u16) -> u8:
    return u8(2)


@pytest.fixture
def isa():
    isa = InstructionSet("test", "A test", 2, length)
    isa.registers("x", ["zero", "a"], zero=0)
    isa.registers("y", ["b", "c"])
    isa.state("flag", 0, "a flag")
    return isa


def slots(function, isa=riscv64):
    return {
        name: slot.offset for name, slot in operand_slots(isa, Module(Target()), Handler(function, 2)).items()
    }


def test_small_operands_are_bytes_and_one_may_be_wide():
    assert slots(integer.add) == {"rd": 8, "rs1": 9, "rs2": 10}
    assert slots(integer.addi) == {"rd": 8, "rs1": 9, "imm": 12}
    assert slots(integer.ecall) == {}
    assert slots(four_small_and_another) == {"a": 8, "b": 9, "c": 10, "d": 11, "e": 12}
    assert slots(two_wide) == {"a": 12, "b": 8}


def four_small_and_another(cpu, a: u8, b: u8, c: u8, d: u8, e: u8) -> None:
    pass


def too_many(cpu, a: u8, b: u8, c: u8, d: u8, e: u8, f: u32) -> None:
    pass


def three_wide(cpu, a: u32, b: u64, c: u64) -> None:
    pass


def two_wide(cpu, a: u32, b: u64) -> None:
    pass


def untyped(cpu, a) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "reason"), [(too_many, "no room"), (three_wide, "no room"), (untyped, "no fixed-width type")]
)
def test_what_does_not_fit_is_refused(function, reason):
    with pytest.raises(DescriptionError, match=reason):
        slots(function)


def reads_its_target(cpu, rd: u8) -> None:
    cpu.x[rd] = cpu.x[rd] + 1


def looks_at_its_target(cpu, rd: u8) -> None:
    if rd != 0:
        cpu.x[rd] = u64(1)


def writes_elsewhere(cpu, rd: u8) -> None:
    cpu.y[rd] = u64(1)


def test_only_operands_that_are_nothing_but_written_go_to_the_sink(isa):
    assert sunk_operands(isa, reads_its_target) == set()
    assert sunk_operands(isa, looks_at_its_target) == set()
    assert sunk_operands(isa, writes_elsewhere) == set()
    from anyvirt.isa.riscv64 import riscv64

    assert sunk_operands(riscv64, integer.add) == {"rd"}
    assert sunk_operands(riscv64, integer.sw) == set()
    assert sunk_operands(riscv64, floating.fmv_w_x) == set()


def test_decoding_stops_where_execution_never_goes_on():
    assert ends_straight_line(integer.jal)
    assert ends_straight_line(integer.ebreak)
    assert not ends_straight_line(integer.beq)
    assert not ends_straight_line(integer.ecall)


def test_a_state_that_is_too_large_is_refused(isa):
    isa.registers("z", [str(number) for number in range(STATE_SIZE // 8)])
    with pytest.raises(ValueError, match="bytes"):
        StateLayout.of(isa)


def unknown_attribute(cpu, rd: u8) -> None:
    cpu.y[rd] = cpu.nothing


def unknown_state(cpu) -> None:
    cpu.nothing = u64(1)


def unknown_registers(cpu, rd: u8) -> None:
    cpu.z[rd] = u64(1)


def unknown_method(cpu) -> None:
    cpu.fly()


def wrong_count(cpu) -> None:
    cpu.jump(u64(1), u64(2))


def branch_to_an_address(cpu) -> None:
    cpu.branch(u64(16))


def narrow_register(cpu, rd: u8) -> None:
    cpu.y[rd] = u32(1)


def narrow_address(cpu) -> None:
    cpu.store8(u32(1), u8(1))


def atomic_giant(cpu, rd: u8) -> None:
    cpu.y[rd] = cpu.exchange("add", u64(0), u128(1))


@pytest.mark.parametrize(
    ("semantics", "reason"),
    [
        (unknown_attribute, "no state nothing"),
        (unknown_state, "no state nothing to assign"),
        (unknown_registers, "no registers z"),
        (unknown_method, "a processor cannot fly"),
        (wrong_count, "jump does not take 2"),
        (branch_to_an_address, "operand of the instruction"),
        (narrow_register, "u32 where u64 is wanted"),
        (narrow_address, "u32 where u64 is wanted"),
        (atomic_giant, "u32 or u64"),
    ],
)
def test_semantics_that_make_no_sense_are_refused_with_their_place(isa, semantics, reason):
    target = InterpreterTarget(isa, Features(counted=False, fma=True))
    with pytest.raises(TypedPythonError, match=reason) as caught:
        target.handler(Module(target), Handler(semantics, 2), "do.test")
    assert str(caught.value).startswith(f"{__file__}:{semantics.__code__.co_firstlineno + 1}: ")
