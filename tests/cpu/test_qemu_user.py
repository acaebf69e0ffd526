"""What every computing instruction of RISC-V does, against qemu-user.

One program executes each form with random operands many times and prints what came of it; qemu-user runs it
as an ELF file, the interpreter tier and the reference run the same bytes. Unlike Unicorn's, QEMU's processor
has the bit-manipulation extensions and floats as the manual has them.
"""

import random
import shutil
import struct
import subprocess
from dataclasses import dataclass

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.tiers import Tier, make_executor
from anyvirt.isa.assembler import assemble
from anyvirt.isa.riscv32 import riscv32
from anyvirt.isa.riscv64 import riscv64

from .machines import INTERESTING, Start

BASE = 0x10000
RESULT_BYTES = 16
EXAMPLES = {Interpreter: 12, ReferenceExecutor: 5}
INPUT, OUTPUT, SCRATCH = 3, 4, 5
"""Registers that the program needs for itself: where operands and results are, and one in between."""
CONTROL = {"jal", "jalr", "beq", "bne", "blt", "bge", "bltu", "bgeu", "ecall", "ebreak", "fence", "fence.i"}
COMPRESSED_CONTROL = {"c.j", "c.jal", "c.jr", "c.jalr", "c.beqz", "c.bnez", "c.ebreak"}
UNKNOWN_TO_QEMU = ("Zicond",)
FLOAT_CONTROL = (1, 2, 3)
COUNTS_TOO_FAR = "ctzw"
"""QEMU before 8.0 goes on to bits 63 to 32 of a register where bits 31 to 0 are all 0."""


@dataclass(frozen=True)
class Case:
    """One instruction with its operands."""

    word: int
    length: int
    values: dict
    start: Start

    def text(self, isa):
        return isa.disassemble(self.word, self.length)


def usable(isa):
    return [
        pattern
        for pattern in isa.patterns
        if "(" not in pattern.assembly
        and pattern.mnemonic not in CONTROL | COMPRESSED_CONTROL
        and pattern.extension not in UNKNOWN_TO_QEMU
    ]


def case(isa, pattern, generator):
    """A random instruction of a form that leaves the program's own registers alone."""
    while True:
        word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
        if "csr" in pattern.by_name:
            word = word & ~(0xFFF << 20) | generator.choice(FLOAT_CONTROL) << 20
        if isa.find(word, pattern.length) is not pattern:
            continue
        values = pattern.decode(word)
        registers = {
            (operand.field.registers, values[name])
            for name, operand in pattern.by_name.items()
            if operand.field.registers
        }
        if not registers & {("x", INPUT), ("x", OUTPUT), ("x", SCRATCH)}:
            return Case(word, pattern.length, values, Start(generator.getrandbits(32)))


def operand_values(isa, pattern, case, generator):
    """Lines that load the operands, and their values in memory."""
    xlen = isa.register_files["x"].width
    lines, data = [], struct.pack("<Q", generator.randrange(5) << 5)
    lines += [f"lw x{SCRATCH}, 0(x{INPUT})", f"csrrw zero, fcsr, x{SCRATCH}"]
    for name, operand in pattern.by_name.items():
        if operand.field.registers is None:
            continue
        number, offset = case.values[name], len(data)
        if operand.field.registers == "f":
            lines.append(f"fld f{number}, {offset}(x{INPUT})")
            data += struct.pack("<Q", case.start.f[number])
        elif number:
            lines.append(f"{'ld' if xlen == 64 else 'lw'} x{number}, {offset}(x{INPUT})")
            value = generator.choice([case.start.x[number], generator.choice(INTERESTING)])
            data += struct.pack("<Q", value & (1 << xlen) - 1)
    return lines, data


def program(isa, cases, generator):
    """The image of a program that executes the cases and writes results, and where those are."""
    lines, data = [f"start: la x{INPUT}, input; la x{OUTPUT}, output"], b""
    wide = "sd" if isa is riscv64 else "sw"
    for one in cases:
        pattern = isa.find(one.word, one.length)
        loads, values = operand_values(isa, pattern, one, generator)
        size = {2: ".half", 4: ".word"}[one.length]
        lines += [*loads, f"{size} {one.word:#x}"]
        if "rd" in pattern.by_name:
            file = pattern.by_name["rd"].field.registers
            number = one.values["rd"]
            lines.append(f"{'fsd' if file == 'f' else wide} {file}{number}, 0(x{OUTPUT})")
        lines += [
            f"csrrs x{SCRATCH}, fcsr, zero; sw x{SCRATCH}, 8(x{OUTPUT})",
            f"addi x{INPUT}, x{INPUT}, {len(values)}; addi x{OUTPUT}, x{OUTPUT}, {RESULT_BYTES}",
        ]
        data += values
    size = RESULT_BYTES * len(cases)
    lines += [f"li a7, 64; li a0, 1; la a1, output; li a2, {size}; done: ecall; li a7, 93; li a0, 0; ecall"]
    lines += [".align 8", "input:", *(f".dword {value:#x}" for (value,) in struct.iter_unpack("<Q", data))]
    lines += ["output:", f".space {size}"]
    return assemble(isa, "\n".join(lines), BASE)


def elf(isa, code):
    """The smallest ELF file that has an image at BASE, readable, writable and executable."""
    wide = isa is riscv64
    header_size, segment_size = (64, 56) if wide else (52, 32)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    word = "Q" if wide else "I"
    double_float = 4 | 1
    header = ident + struct.pack(
        f"<HHI{word}{word}{word}IHHHHHH",
        *(2, 243, 1, BASE, header_size, 0, double_float, header_size, segment_size, 1, 0, 0, 0),
    )
    offset = 0x1000
    if wide:
        segment = struct.pack("<IIQQQQQQ", 1, 7, offset, BASE, BASE, len(code), len(code), 0x1000)
    else:
        segment = struct.pack("<IIIIIIII", 1, offset, BASE, BASE, len(code), len(code), 7, 0x1000)
    return (header + segment).ljust(offset, b"\0") + code


def run_in_qemu(isa, image, directory):
    """What a program prints under qemu-user."""
    qemu = shutil.which(f"qemu-{isa.name}-static") or shutil.which(f"qemu-{isa.name}")
    if qemu is None:
        pytest.skip(f"needs qemu-{isa.name} (package qemu-user-static)")
    path = directory / "program"
    path.write_bytes(elf(isa, image.code))
    path.chmod(0o755)
    return subprocess.run([qemu, path], capture_output=True, check=True, timeout=60).stdout


def loaded(image, make):
    """An executor at the start of a program."""
    memory = FlatMemory()
    memory.map(BASE, -(-len(image.code) // 4096) * 4096, 7)
    memory.write(BASE, image.code)
    cpu = make(memory)
    cpu.pc = BASE
    return cpu


@pytest.mark.parametrize("isa", [riscv64, riscv32], ids=lambda isa: isa.name)
@pytest.mark.parametrize("make", [Interpreter, ReferenceExecutor])
def test_every_form_computes_what_qemu_computes(isa, make, tmp_path):
    generator = random.Random(8)
    cases = [case(isa, pattern, generator) for pattern in usable(isa) for _ in range(EXAMPLES[make])]
    generator.shuffle(cases)
    image = program(isa, cases, generator)
    expected = run_in_qemu(isa, image, tmp_path)
    assert len(expected) == RESULT_BYTES * len(cases)
    cpu = loaded(image, lambda memory: make(isa.name, memory))
    stop = cpu.run()
    assert (stop.reason, stop.pc) == (StopReason.SYSTEM_CALL, image.symbols["done"])
    actual = cpu.memory.read(image.symbols["output"], len(expected))
    different = [
        (one.text(isa), expected[at : at + RESULT_BYTES].hex(), actual[at : at + RESULT_BYTES].hex())
        for at, one in zip(range(0, len(expected), RESULT_BYTES), cases, strict=True)
        if expected[at : at + RESULT_BYTES] != actual[at : at + RESULT_BYTES]
        and not (one.text(isa).startswith(COUNTS_TOO_FAR) and actual[at] == 32 < expected[at])
    ]
    assert not different[:20]


HOT_LOOP = """
start:  li s0, 2000000; li a0, 0x789abcdf; la a1, output; li a2, 0; li a3, 0; li a4, 0
loop:   slli t0, a0, 13; xor a0, a0, t0; srli t0, a0, 17; xor a0, a0, t0; slli t0, a0, 5; xor a0, a0, t0
        mulhu t1, a0, a0; mulh t2, a0, s0; sltu t0, t1, t2; add a2, a2, t0; rol t2, a0, s0; add a3, a3, t2
        sra t1, a0, s0; sub a3, a3, t1; clz t1, a0; bset a4, a4, t1; divu t1, a0, s0; add a3, a3, t1
        andi t1, a0, 0x7c; add t1, t1, a1; lw t2, 0(t1); add t2, t2, a0; sw t2, 0(t1)
        bltz a0, 1f; addi a2, a2, 3
1f:     call leaf; addi s0, s0, -1; bnez s0, loop
        sw a0, 128(a1); sw a2, 132(a1); sw a3, 136(a1); sw a4, 140(a1)
        li a7, 64; li a0, 1; li a2, 144
done:   ecall; li a7, 93; li a0, 0; ecall
leaf:   remu t1, a3, s0; xor a2, a2, t1; ret
        // QEMU watches stores to pages with code.
        .align 4096
output: .space 144
""".replace("1f", "positive")


@pytest.mark.parametrize("isa", [riscv64, riscv32], ids=lambda isa: isa.name)
@pytest.mark.parametrize("tier", list(Tier))
def test_a_hot_loop_computes_what_qemu_computes(isa, tier, tmp_path):
    image = assemble(isa, HOT_LOOP, BASE)
    expected = run_in_qemu(isa, image, tmp_path)
    assert len(expected) == 144
    cpu = loaded(image, lambda memory: make_executor(isa.name, memory, tier=tier))
    stop = cpu.run()
    assert (stop.reason, stop.pc) == (StopReason.SYSTEM_CALL, image.symbols["done"])
    assert cpu.memory.read(image.symbols["output"], 144) == expected
