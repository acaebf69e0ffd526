"""Describing instruction sets: patterns, fields, and the contradictions that are found when building."""

from collections import Counter

import pytest

from anyvirt.isa.description import DescriptionError, InstructionSet
from anyvirt.isa.riscv64 import riscv64
from anyvirt.typed import u8, u16, u64


def two(parcel: u16) -> u8:
    return u8(2)


@pytest.fixture
def toy():
    isa = InstructionSet("toy", "A toy", 2, two)
    isa.registers("r", [f"r{number}" for number in range(16)], zero=0)
    isa.register_field("a", 4, "r")
    isa.register_field("b", 4, "r")
    isa.register_field("b'", 2, "r", operand="b", bias=8)
    isa.number_field("n", signed=True)
    isa.number_field("flag", 1, show=lambda value: "!" if value else "")
    return isa


def copy(cpu, a: u8, b: u8) -> None:
    cpu.r[a] = cpu.r[b]


def set_to(cpu, a: u8, n: u64) -> None:
    cpu.r[a] = n


def nothing(cpu) -> None:
    pass


def test_fields_are_put_together(toy):
    toy.instruction("01 n[5|1:0] a n[4:2] 00 b'", "mix {a}, {b}, {n}")(copy)
    toy.instruction("10 flag ----- a/b ----", "both{flag} {a}")(copy)
    toy.build()
    word = 0b01_1_10_1010_011_00_01
    pattern = toy.find(word, 2)
    assert pattern.decode(word) == {"n": 0b101110 - 64, "a": 10, "b": 9}
    assert toy.disassemble(word, 2) == "mix r10, r9, -18"
    assert toy.disassemble(0b10_1_01010_0011_1111, 2) == "both! r3"
    assert toy.find(0b10_1_01010_0011_1111, 2).decode(0b10_1_01010_0011_1111) == {"flag": 1, "a": 3, "b": 3}
    assert toy.disassemble(0, 2) is None


def test_addresses_are_shown_relative_to_the_instruction(toy):
    toy.instruction("00000000 n[7:0]", "go {pc+n}", fixed={"a": 1})(set_to)
    toy.build()
    assert toy.disassemble(0xFE, 2, pc=0x1000) == "go 0xffe"
    assert toy.disassemble(0xFE, 2) == "go 0xfffffffffffffffe"


def test_the_more_specific_pattern_is_meant(toy):
    toy.instruction("0000 a b ----", "copy {a}, {b}")(copy)
    toy.instruction("0000 0000 0000 ----", "nothing")(nothing)
    toy.instruction("0000 0001 b ----", "special {b}", fixed={"a": 1})(copy)
    toy.build()
    assert toy.disassemble(0x0050, 2) == "copy r0, r5"
    assert toy.disassemble(0x0000, 2) == "nothing"
    assert toy.disassemble(0x0150, 2) == "special r5"


def test_excluded_values_belong_to_others_or_to_nobody(toy):
    toy.instruction("0000 a b ----", "copy {a}, {b}", excluding={"b": (0, 3)})(copy)
    toy.instruction("0000 a 0000 ----", "clear {a}", fixed={"b": 0})(copy)
    toy.build()
    assert toy.disassemble(0x0120, 2) == "copy r1, r2"
    assert toy.disassemble(0x0100, 2) == "clear r1"
    assert toy.disassemble(0x0130, 2) is None


def test_overlapping_patterns_are_an_error(toy):
    toy.instruction("0000 a b ---1", "one {a}, {b}")(copy)
    toy.instruction("0000 a b --1-", "other {a}, {b}")(copy)
    with pytest.raises(DescriptionError, match=r"'one .*'other .*overlap"):
        toy.build()


def test_the_same_pattern_twice_is_an_error(toy):
    toy.instruction("0000 a b 0000", "one {a}, {b}")(copy)
    toy.instruction("0000 b a 0000", "two {a}, {b}")(copy)
    with pytest.raises(DescriptionError, match="overlap"):
        toy.build()


def test_patterns_that_nothing_reaches_are_an_error(toy):
    for number in range(16):
        toy.instruction(f"0000 {number:04b} b ----", f"copy{number} {{b}}", fixed={"a": number})(copy)
    toy.instruction("0000 a b ----", "never {a}, {b}")(copy)
    with pytest.raises(DescriptionError, match=r"'never .*never reached"):
        toy.build()


@pytest.mark.parametrize(
    ("bits", "options", "reason"),
    [
        ("0000 a b", {}, "whole number of bytes"),
        ("0000 a c ----", {}, "c"),
        ("0000 a n ----", {}, "bits named"),
        ("0000 a b 00?0", {}, "no pattern"),
        ("0000 a ---- ----", {}, "nothing gives b"),
        ("0000 a b ----", {"fixed": {"a": 3}}, "given twice"),
        ("0000 a b ----", {"excluding": {"n": (3,)}}, "n"),
    ],
)
def test_wrong_patterns_are_refused(toy, bits, options, reason):
    with pytest.raises(DescriptionError, match=reason):
        toy.instruction(bits, "wrong", **options)(copy)


def test_extensions_name_the_parts(toy):
    toy.extension("base", "what there always is")
    toy.extension("more", "what there may be")
    toy.begin("base")
    toy.instruction("0000 a b 0000", "copy {a}, {b}")(copy)
    toy.instruction("0000 a b 0001", "copy.more {a}, {b}", extension="more")(copy)
    assert [pattern.extension for pattern in toy.patterns] == ["base", "more"]
    with pytest.raises(DescriptionError, match="toy has no extension mere"):
        toy.begin("mere")
    with pytest.raises(DescriptionError, match="no extension mere"):
        toy.instruction("0000 a b 0010", "copy.mere {a}, {b}", extension="mere")


# Instructions for each extension, what only RV64 has included (manual, "Instruction Set Listings" and "B").
RISC_V = {
    "I": 52, "M": 13, "A": 22, "F": 30, "D": 32, "Zicsr": 6, "Zifencei": 1, "C": 37, "Zba": 8, "Zbb": 24,
    "Zbs": 8, "Zicond": 2,
}  # fmt: skip


def test_risc_v_is_complete():
    found = Counter()
    for extension, _ in {(pattern.extension, pattern.mnemonic) for pattern in riscv64.patterns}:
        found[extension.removeprefix("RV64")] += 1
    assert found == RISC_V
