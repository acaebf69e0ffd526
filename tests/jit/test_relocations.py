"""Relocations: what is patched into an instruction is what a disassembler reads from it."""

import struct

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.isa.names import Isa
from anyvirt.jit.relocations import LINK_RULES, Formula

RISCV = {kind.name: kind for kind in LINK_RULES[Isa.RISCV64].types.values()}
X86 = {kind.name: kind for kind in LINK_RULES[Isa.X86_64].types.values()}
SIGNED_32 = st.integers(-(1 << 31), (1 << 31) - 0x801)


def riscv_operands(code):
    disassembler = capstone.Cs(capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64)
    disassembler.detail = True
    return [instruction.operands for instruction in disassembler.disasm(code, 0)]


def immediate(operand):
    return operand.mem.disp if operand.type == capstone.riscv.RISCV_OP_MEM else operand.imm


def upper(operand):
    """The value that LUI and AUIPC make of their 20-bit immediate."""
    return ((immediate(operand) & 0xFFFFF) << 12 ^ 0x80000000) - 0x80000000


@given(SIGNED_32)
def test_hi20_and_lo12_make_the_whole_address(value):
    code = bytearray(struct.pack("<II", 0x00000537, 0x00053503))  # lui a0, 0; ld a0, 0(a0)
    RISCV["R_RISCV_HI20"].patch(code, 0, value)
    RISCV["R_RISCV_LO12_I"].patch(code, 4, value)
    lui, load = riscv_operands(bytes(code))
    assert upper(lui[1]) + immediate(load[1]) == value


@given(SIGNED_32)
def test_stores_take_the_low_part_in_two_fields(value):
    code = bytearray(struct.pack("<II", 0x00000537, 0x00B53023))  # lui a0, 0; sd a1, 0(a0)
    RISCV["R_RISCV_PCREL_HI20"].patch(code, 0, value)
    RISCV["R_RISCV_PCREL_LO12_S"].patch(code, 4, value)
    lui, store = riscv_operands(bytes(code))
    assert upper(lui[1]) + immediate(store[1]) == value


@given(SIGNED_32)
def test_calls_patch_both_instructions(value):
    code = bytearray(struct.pack("<II", 0x00000097, 0x000080E7))  # auipc ra, 0; jalr ra, 0(ra)
    RISCV["R_RISCV_CALL_PLT"].patch(code, 0, value)
    (auipc,) = riscv_operands(bytes(code[:4]))
    low = struct.unpack_from("<i", code, 4)[0] >> 20
    assert upper(auipc[1]) + low == value
    assert code[4:6] == b"\xe7\x80"


@pytest.mark.parametrize(
    ("name", "word", "size", "bits"),
    [
        ("R_RISCV_BRANCH", 0x00B50063, 4, 13),  # beq a0, a1, .
        ("R_RISCV_JAL", 0x000000EF, 4, 21),  # jal ra, .
        ("R_RISCV_RVC_BRANCH", 0xC101, 2, 9),  # c.beqz a0, .
        ("R_RISCV_RVC_JUMP", 0xA001, 2, 12),  # c.j .
    ],
)
@given(data=st.data())
def test_jumps_go_where_they_should(name, word, size, bits, data):
    distance = data.draw(st.integers(-1 << bits - 2, (1 << bits - 2) - 1)) * 2
    code = bytearray(word.to_bytes(size, "little"))
    RISCV[name].patch(code, 0, distance)
    mode = capstone.CS_MODE_RISCV64 | capstone.CS_MODE_RISCVC
    (instruction,) = capstone.Cs(capstone.CS_ARCH_RISCV, mode).disasm(bytes(code), 0)
    assert int(instruction.op_str.rpartition(",")[2], 0) == distance
    with pytest.raises(OverflowError):
        RISCV[name].patch(code, 0, 1 << bits - 1)


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_differences_are_left_in_the_data(first, second):
    data = bytearray(4)
    RISCV["R_RISCV_ADD32"].patch(data, 0, first)
    RISCV["R_RISCV_SUB32"].patch(data, 0, second)
    assert int.from_bytes(data, "little") == (first - second) & 0xFFFFFFFF


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1))
def test_only_the_field_changes(word, value):
    code = bytearray(struct.pack("<I", word))
    RISCV["R_RISCV_LO12_S"].patch(code, 0, value)
    assert (struct.unpack("<I", code)[0] ^ word) & ~0xFE000F80 == 0


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (RISCV["R_RISCV_HI20"], 1 << 31),
        (RISCV["R_RISCV_32"], -1),
        (RISCV["R_RISCV_32"], 1 << 32),
        (X86["R_X86_64_PC32"], 1 << 31),
        (X86["R_X86_64_PC32"], (-1 << 31) - 1),
        (X86["R_X86_64_32"], -1),
        (X86["R_X86_64_32S"], 1 << 31),
    ],
)
def test_what_does_not_fit_is_an_overflow(kind, value):
    with pytest.raises(OverflowError):
        kind.patch(bytearray(8), 0, value)


def test_formulas_follow_the_names():
    for kinds in (RISCV, X86):
        for name, kind in kinds.items():
            relative = any(part in name for part in ("PC32", "PLT", "CALL", "PCREL_HI", "BRANCH", "J"))
            partner = "PCREL_LO" in name
            expected = Formula.RELATIVE if relative else Formula.OF_PARTNER if partner else Formula.ABSOLUTE
            assert kind.formula is expected


def test_refused_types_are_not_applied_ones():
    for rules in LINK_RULES.values():
        assert not rules.types.keys() & rules.refused.keys()
