"""F and D: single and double precision. Chapters "F" and "D".

A single-precision number in a 64-bit register is boxed: its upper half is all ones. A register that is
not properly boxed reads as the canonical NaN in single-precision arithmetic.
"""

# Pattern and assembly form document an instruction; the compiler resolves annotations at run time.
# ruff: noqa: D103, TC001

from __future__ import annotations

from anyvirt.isa import ieee754
from anyvirt.isa.ieee754 import Kind
from anyvirt.isa.processor import Immediate, Register, Small
from anyvirt.isa.riscv64.hart import DYNAMIC, Hart, compressed, rv
from anyvirt.typed import s32, u8, u32, u64


def read(cpu: Hart, width: int, number: Register) -> u64:
    """The number in a register."""
    value = cpu.f[number]
    if width == 32:
        return value & 0xFFFFFFFF if value >> 32 == 0xFFFFFFFF else u64(0x7FC00000)
    return value


def write(cpu: Hart, width: int, number: Register, value: u64) -> None:
    """Put a number into a register, boxed if it is narrow."""
    if width == 32:
        cpu.f[number] = value | 0xFFFFFFFF00000000
    else:
        cpu.f[number] = value


def rounding(cpu: Hart, rm: Small) -> u8:
    """The rounding mode an instruction asks for; reserved ones are illegal."""
    mode = cpu.float_rounding if rm == DYNAMIC else rm
    if mode > 4:
        cpu.illegal()
    return mode


# Loads and stores -------------------------------------------------------------------------------------------


rv.begin("F")


@rv.instruction("imm[11:0] rs1 010 fd 0000111", "flw {rd}, {imm}({rs1})")
def flw(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.f[rd] = u64(cpu.load32(cpu.x[rs1] + imm)) | 0xFFFFFFFF00000000


@rv.instruction("imm[11:5] fs2 rs1 010 imm[4:0] 0100111", "fsw {rs2}, {imm}({rs1})")
def fsw(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    cpu.store32(cpu.x[rs1] + imm, cpu.f[rs2])


rv.begin("D")


@rv.instruction("imm[11:0] rs1 011 fd 0000111", "fld {rd}, {imm}({rs1})")
@compressed("001 uimm[5:3] rs1' uimm[7:6] fd' 00", "c.fld {rd}, {imm}({rs1})")
@compressed("001 uimm[5] fd uimm[4:3|8:6] 10", "c.fldsp {rd}, {imm}({rs1})", fixed={"rs1": 2})
def fld(cpu: Hart, rd: Register, rs1: Register, imm: Immediate) -> None:
    cpu.f[rd] = cpu.load64(cpu.x[rs1] + imm)


@rv.instruction("imm[11:5] fs2 rs1 011 imm[4:0] 0100111", "fsd {rs2}, {imm}({rs1})")
@compressed("101 uimm[5:3] rs1' uimm[7:6] fs2' 00", "c.fsd {rs2}, {imm}({rs1})")
@compressed("101 uimm[5:3|8:6] fs2 10", "c.fsdsp {rs2}, {imm}({rs1})", fixed={"rs1": 2})
def fsd(cpu: Hart, rs1: Register, rs2: Register, imm: Immediate) -> None:
    cpu.store64(cpu.x[rs1] + imm, cpu.f[rs2])


# What exists for both widths --------------------------------------------------------------------------------


def _describe_arithmetic(width: int, letter: str, code: str) -> None:
    @rv.instruction(f"00000{code} fs2 fs1 rm fd 1010011", f"fadd.{letter} {{rd}}, {{rs1}}, {{rs2}}{{rm}}")
    def fadd(cpu: Hart, rd: Register, rs1: Register, rs2: Register, rm: Small) -> None:
        mode = rounding(cpu, rm)
        result = cpu.float_add(width, read(cpu, width, rs1), read(cpu, width, rs2), mode)
        write(cpu, width, rd, result)

    @rv.instruction(f"00001{code} fs2 fs1 rm fd 1010011", f"fsub.{letter} {{rd}}, {{rs1}}, {{rs2}}{{rm}}")
    def fsub(cpu: Hart, rd: Register, rs1: Register, rs2: Register, rm: Small) -> None:
        mode = rounding(cpu, rm)
        result = cpu.float_subtract(width, read(cpu, width, rs1), read(cpu, width, rs2), mode)
        write(cpu, width, rd, result)

    @rv.instruction(f"00010{code} fs2 fs1 rm fd 1010011", f"fmul.{letter} {{rd}}, {{rs1}}, {{rs2}}{{rm}}")
    def fmul(cpu: Hart, rd: Register, rs1: Register, rs2: Register, rm: Small) -> None:
        mode = rounding(cpu, rm)
        result = cpu.float_multiply(width, read(cpu, width, rs1), read(cpu, width, rs2), mode)
        write(cpu, width, rd, result)

    @rv.instruction(f"00011{code} fs2 fs1 rm fd 1010011", f"fdiv.{letter} {{rd}}, {{rs1}}, {{rs2}}{{rm}}")
    def fdiv(cpu: Hart, rd: Register, rs1: Register, rs2: Register, rm: Small) -> None:
        mode = rounding(cpu, rm)
        result = cpu.float_divide(width, read(cpu, width, rs1), read(cpu, width, rs2), mode)
        write(cpu, width, rd, result)

    @rv.instruction(f"01011{code} 00000 fs1 rm fd 1010011", f"fsqrt.{letter} {{rd}}, {{rs1}}{{rm}}")
    def fsqrt(cpu: Hart, rd: Register, rs1: Register, rm: Small) -> None:
        mode = rounding(cpu, rm)
        write(cpu, width, rd, cpu.float_sqrt(width, read(cpu, width, rs1), mode))


def _describe_fused(width: int, letter: str, code: str) -> None:
    """The four signs of `a * b + c`: each negates the product, the addend, or both."""
    sign = 1 << (width - 1)
    for opcode, name, product_sign, addend_sign in (
        ("1000011", "fmadd", 0, 0),
        ("1000111", "fmsub", 0, sign),
        ("1001011", "fnmsub", sign, 0),
        ("1001111", "fnmadd", sign, sign),
    ):
        _describe_one_fused(width, letter, code, opcode, name, product_sign, addend_sign)


def _describe_one_fused(
    width: int, letter: str, code: str, opcode: str, name: str, product_sign: int, addend_sign: int
) -> None:
    @rv.instruction(
        f"fs3 {code} fs2 fs1 rm fd {opcode}", f"{name}.{letter} {{rd}}, {{rs1}}, {{rs2}}, {{rs3}}{{rm}}"
    )
    def fused(cpu: Hart, rd: Register, rs1: Register, rs2: Register, rs3: Register, rm: u32) -> None:
        mode = rounding(cpu, u8(rm))
        a = read(cpu, width, rs1) ^ product_sign
        c = read(cpu, width, rs3) ^ addend_sign
        write(cpu, width, rd, cpu.float_fma(width, a, read(cpu, width, rs2), c, mode))


def _describe_signs(width: int, letter: str, code: str) -> None:
    sign = 1 << (width - 1)

    @rv.instruction(f"00100{code} fs2 fs1 000 fd 1010011", f"fsgnj.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def fsgnj(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        magnitude = read(cpu, width, rs1) & (sign - 1)
        write(cpu, width, rd, magnitude | (read(cpu, width, rs2) & sign))

    @rv.instruction(f"00100{code} fs2 fs1 001 fd 1010011", f"fsgnjn.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def fsgnjn(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        magnitude = read(cpu, width, rs1) & (sign - 1)
        write(cpu, width, rd, magnitude | (~read(cpu, width, rs2) & sign))

    @rv.instruction(f"00100{code} fs2 fs1 010 fd 1010011", f"fsgnjx.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def fsgnjx(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        write(cpu, width, rd, read(cpu, width, rs1) ^ (read(cpu, width, rs2) & sign))


def _describe_comparisons(width: int, letter: str, code: str) -> None:
    @rv.instruction(f"00101{code} fs2 fs1 000 fd 1010011", f"fmin.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def fmin(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        result, flags = ieee754.extreme(u8(width), read(cpu, width, rs1), read(cpu, width, rs2), False)
        cpu.raise_float_flags(flags)
        write(cpu, width, rd, result)

    @rv.instruction(f"00101{code} fs2 fs1 001 fd 1010011", f"fmax.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def fmax(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        result, flags = ieee754.extreme(u8(width), read(cpu, width, rs1), read(cpu, width, rs2), True)
        cpu.raise_float_flags(flags)
        write(cpu, width, rd, result)

    @rv.instruction(f"10100{code} fs2 fs1 010 rd 1010011", f"feq.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def feq(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.x[rd] = u64(cpu.float_compare("==", width, read(cpu, width, rs1), read(cpu, width, rs2)))

    @rv.instruction(f"10100{code} fs2 fs1 001 rd 1010011", f"flt.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def flt(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.x[rd] = u64(cpu.float_compare("<", width, read(cpu, width, rs1), read(cpu, width, rs2)))

    @rv.instruction(f"10100{code} fs2 fs1 000 rd 1010011", f"fle.{letter} {{rd}}, {{rs1}}, {{rs2}}")
    def fle(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:
        cpu.x[rd] = u64(cpu.float_compare("<=", width, read(cpu, width, rs1), read(cpu, width, rs2)))

    @rv.instruction(f"11100{code} 00000 fs1 001 rd 1010011", f"fclass.{letter} {{rd}}, {{rs1}}")
    def fclass(cpu: Hart, rd: Register, rs1: Register) -> None:
        cpu.x[rd] = classify(u8(width), read(cpu, width, rs1))


def classify(width: u8, a: u64) -> u64:
    """One bit for the class of a number; chapter "F", table "Format of result of FCLASS"."""
    kind, sign, _, significand = ieee754.unpack(width, a)
    if kind == Kind.SIGNALING_NAN:
        return u64(1) << 8
    if kind == Kind.QUIET_NAN:
        return u64(1) << 9
    if kind == Kind.INFINITE:
        position = u8(0)
    elif kind == Kind.ZERO:
        position = u8(3)
    elif significand >> (ieee754.precision(width) - 1) == 0:
        position = u8(2)
    else:
        position = u8(1)
    return u64(1) << (position if sign == 1 else u8(7) - position)


def _describe_integers(width: int, letter: str, code: str) -> None:
    """Conversions from and to each of the four integer types."""
    for selector, integer, suffix in (
        ("00000", "s32", "w"),
        ("00001", "u32", "wu"),
        ("00010", "s64", "l"),
        ("00011", "u64", "lu"),
    ):
        _describe_one_integer(width, letter, code, selector, integer, suffix)


def _describe_one_integer(
    width: int, letter: str, code: str, selector: str, integer: str, suffix: str
) -> None:
    part = {"s": "F", "d": "D"}[letter]
    extension = f"RV64{part}" if integer.endswith("64") else part

    @rv.instruction(
        f"11000{code} {selector} fs1 rm rd 1010011",
        f"fcvt.{suffix}.{letter} {{rd}}, {{rs1}}{{rm}}",
        extension=extension,
    )
    def fcvt_to_integer(cpu: Hart, rd: Register, rs1: Register, rm: Small) -> None:
        mode = rounding(cpu, rm)
        cpu.x[rd] = cpu.float_to_integer(width, integer, read(cpu, width, rs1), mode)

    exact = width == 64 and integer.endswith("32")
    shown = "" if exact else "{rm}"

    @rv.instruction(
        f"11010{code} {selector} rs1 rm fd 1010011",
        f"fcvt.{letter}.{suffix} {{rd}}, {{rs1}}{shown}",
        extension=extension,
    )
    def fcvt_from_integer(cpu: Hart, rd: Register, rs1: Register, rm: Small) -> None:
        mode = rounding(cpu, rm)
        write(cpu, width, rd, cpu.float_from_integer(width, integer, cpu.x[rs1], mode))


for _part, _width, _letter, _code in (("F", 32, "s", "00"), ("D", 64, "d", "01")):
    rv.begin(_part)
    for _describe in (
        _describe_arithmetic,
        _describe_fused,
        _describe_signs,
        _describe_comparisons,
        _describe_integers,
    ):
        _describe(_width, _letter, _code)


# Between the widths, and bits as they are -------------------------------------------------------------------


@rv.instruction("0100000 00001 fs1 rm fd 1010011", "fcvt.s.d {rd}, {rs1}{rm}")
def fcvt_s_d(cpu: Hart, rd: Register, rs1: Register, rm: Small) -> None:
    mode = rounding(cpu, rm)
    write(cpu, 32, rd, cpu.float_convert(64, 32, cpu.f[rs1], mode))


@rv.instruction("0100001 00000 fs1 rm fd 1010011", "fcvt.d.s {rd}, {rs1}")
def fcvt_d_s(cpu: Hart, rd: Register, rs1: Register, rm: Small) -> None:
    mode = rounding(cpu, rm)
    cpu.f[rd] = cpu.float_convert(32, 64, read(cpu, 32, rs1), mode)


@rv.instruction("1110000 00000 fs1 000 rd 1010011", "fmv.x.w {rd}, {rs1}", extension="F")
def fmv_x_w(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = u64(s32(cpu.f[rs1]))


@rv.instruction("1111000 00000 rs1 000 fd 1010011", "fmv.w.x {rd}, {rs1}", extension="F")
def fmv_w_x(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.f[rd] = cpu.x[rs1] | 0xFFFFFFFF00000000


@rv.instruction("1110001 00000 fs1 000 rd 1010011", "fmv.x.d {rd}, {rs1}", extension="RV64D")
def fmv_x_d(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.x[rd] = cpu.f[rs1]


@rv.instruction("1111001 00000 rs1 000 fd 1010011", "fmv.d.x {rd}, {rs1}", extension="RV64D")
def fmv_d_x(cpu: Hart, rd: Register, rs1: Register) -> None:
    cpu.f[rd] = cpu.x[rs1]
