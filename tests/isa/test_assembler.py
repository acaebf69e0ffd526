"""The assembler: inverse of the disassembler, equal to GNU as, and clear about what is wrong."""

import random
import re
import shutil
import subprocess

import llvmlite.binding as llvm
import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.isa.assembler import AssemblyError, assemble
from anyvirt.isa.catalogue import described, description
from anyvirt.isa.description import InstructionSet
from anyvirt.isa.encoding import default_mode, instruction_bytes
from anyvirt.isa.riscv32 import riscv32
from anyvirt.isa.riscv64 import riscv64
from anyvirt.typed import u8, u16

PC = 0x10000
EXAMPLES = 30
GNU_AS, OBJCOPY = shutil.which("riscv64-linux-gnu-as"), shutil.which("riscv64-linux-gnu-objcopy")
# Newer than Debian 12's binutils: tests below have another oracle.
UNKNOWN_TO_GNU_AS = ("Zicond",)

FORMS = [
    pytest.param(isa, pattern, id=f"{isa.name}-{pattern.mnemonic}")
    for isa in (riscv64, riscv32)
    for pattern in isa.patterns
]


def encodings(isa, pattern, generator, count):
    """Random words of a pattern."""
    found = []
    while len(found) < count:
        word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
        if isa.find(word, pattern.length) is pattern:
            found.append(word)
    return found


@pytest.mark.parametrize(("isa", "pattern"), FORMS)
def test_what_the_disassembler_writes_is_assembled(isa, pattern):
    shown = set(re.findall(r"\{(?:pc\+)?(\w+)\}", pattern.assembly))
    for word in encodings(isa, pattern, random.Random(pattern.assembly), EXAMPLES):
        text = isa.disassemble(word, pattern.length, PC)
        code = isa.assemble(text, PC)
        again = int.from_bytes(code, "little")
        assert isa.find(again, len(code)) is pattern, text
        before, after = pattern.decode(word), pattern.decode(again)
        assert {name: before[name] for name in shown} == {name: after[name] for name in shown}, text


def instructions(isa, generator):
    """Random encoded instructions: some of every pattern, or of a stream what random bytes are."""
    if isa.context is None:
        for pattern in isa.patterns:
            for word in encodings(isa, pattern, generator, 3):
                yield instruction_bytes(isa, word, pattern.length)
    else:
        for _ in range(120):
            prefixes = generator.choice([b"", b"", b"\x66", b"\xf3", b"\x41", b"\x4c"])
            yield prefixes + generator.choice([b"", b"\x0f"]) + generator.randbytes(14)


@pytest.mark.parametrize("name", [name for name in described() if not name.startswith("riscv")])
def test_other_instruction_sets_are_assembled(name):
    isa = description(name)
    for code in instructions(isa, random.Random(name)):
        found = isa.decode(code, default_mode(isa))
        if found is None:
            continue
        text = isa.disassemble(found.word, found.length, PC)
        again = isa.decode(isa.assemble(text, PC), default_mode(isa))
        assert isa.disassemble(again.word, again.length, PC) == text, code[: found.length].hex()


def gnu_as(xlen, lines, tmp_path):
    """The bytes that GNU as makes of lines."""
    arch = f"rv{xlen}gc_zicsr_zifencei_zba_zbb_zbs"
    source, made, binary = (tmp_path / name for name in ("in.s", "out.o", "out.bin"))
    source.write_text("\n".join((".option norelax", *lines, "")))
    abi = {64: "lp64d", 32: "ilp32d"}[xlen]
    subprocess.run([GNU_AS, f"-march={arch}", f"-mabi={abi}", "-o", made, source], check=True, timeout=60)
    subprocess.run([OBJCOPY, "-O", "binary", "-j", ".text", made, binary], check=True, timeout=60)
    return binary.read_bytes()


def for_gnu_as(text, length):
    """Our line as GNU as wants it: compressed or not as it is, distances instead of addresses."""
    option = "rvc" if length == 2 else "norvc"
    address = re.search(r"0x[0-9a-f]+$", text)
    if address and text.split()[0].removeprefix("c.")[0] in "bj" and "jr" not in text:
        text = f"{text[: address.start()]}.{int(address[0], 16) - PC:+d}"
    return [f".option {option}", text]


@pytest.mark.skipif(not (GNU_AS and OBJCOPY), reason="needs binutils-riscv64-linux-gnu")
@pytest.mark.parametrize("isa", [riscv64, riscv32], ids=lambda isa: isa.name)
def test_gnu_as_makes_the_same(isa, tmp_path):
    generator = random.Random(5)
    lines, expected, texts = [], b"", []
    for pattern in isa.patterns:
        if pattern.extension in UNKNOWN_TO_GNU_AS or pattern.mnemonic in ("fence", "fence.i"):
            continue
        for word in encodings(isa, pattern, generator, 12):
            text = isa.disassemble(word, pattern.length, PC)
            if text.startswith("c.sr") and text.endswith(", 0"):
                # A HINT, which GNU as refuses.
                continue
            lines += for_gnu_as(text, pattern.length)
            expected += isa.assemble(text, PC)
            texts += [text] * (pattern.length // 2)
    actual = gnu_as(64 if isa is riscv64 else 32, lines, tmp_path)
    different = [
        (texts[at // 2], expected[at : at + 2].hex(), actual[at : at + 2].hex())
        for at in range(0, len(expected), 2)
        if expected[at : at + 2] != actual[at : at + 2]
    ]
    assert not different[:10]
    assert len(actual) == len(expected)


PSEUDO = """
nop; mv a0, a1; not a0, a1; neg a0, a1; zext.b a0, a1; seqz a0, a1; snez a0, a1; sltz a0, a1
sgtz a0, a1; beqz a0, .+8; bnez a0, .+8; blez a0, .+8; bgez a0, .+8; bltz a0, .+8; bgtz a0, .+8
bgt a0, a1, .+8; ble a0, a1, .+8; bgtu a0, a1, .+8; bleu a0, a1, .+8; j .+8; jal .+8; jr a0; jalr a0
ret; fence; fmv.s fa0, fa1; fabs.s fa0, fa1; fneg.s fa0, fa1; fmv.d fa0, fa1; fabs.d fa0, fa1
fneg.d fa0, fa1; csrr a0, fcsr; csrw fcsr, a0; csrwi frm, 1; frcsr a0; fscsr a0; rdcycle a0; rdtime a0
rdinstret a0; li a0, 5; li a0, -2048; li a0, 0x7ffff; li a0, -2049; li a0, 0x12345678; li a0, 4096
li a0, 0x7fffffff
fence.i; fence rw, w; fence i, o
"""
PSEUDO_64 = "negw a0, a1; sext.w a0, a1; zext.w a0, a1; li a0, 0x80000000; li a0, -0x80000000"


@pytest.mark.skipif(not (GNU_AS and OBJCOPY), reason="needs binutils-riscv64-linux-gnu")
@pytest.mark.parametrize("isa", [riscv64, riscv32], ids=lambda isa: isa.name)
def test_gnu_as_expands_pseudo_instructions_the_same(isa, tmp_path):
    text = PSEUDO + (PSEUDO_64 if isa is riscv64 else "")
    lines = [line.strip() for line in text.replace("\n", ";").split(";") if line.strip()]
    actual = gnu_as(64 if isa is riscv64 else 32, [".option norvc", *lines], tmp_path)
    position = 0
    for line in lines:
        code = isa.assemble(line)
        if line.startswith("li a0, 0x80000000"):
            # GNU as knows a longer way and a shorter one; the value is tested below.
            position = len(actual) - len(actual[position:]) + 8
            continue
        assert actual[position : position + len(code)] == code, line
        position += len(code)
    assert position == len(actual)


CONDITIONALS = """
target triple = "riscv{xlen}-unknown-linux-gnu"
define i{xlen} @keep_unless_zero(i{xlen} %value, i{xlen} %condition) {{
  %zero = icmp eq i{xlen} %condition, 0
  %result = select i1 %zero, i{xlen} 0, i{xlen} %value
  ret i{xlen} %result
}}
define i{xlen} @keep_if_zero(i{xlen} %value, i{xlen} %condition) {{
  %zero = icmp eq i{xlen} %condition, 0
  %result = select i1 %zero, i{xlen} %value, i{xlen} 0
  ret i{xlen} %result
}}
"""


@pytest.mark.parametrize("isa", [riscv64, riscv32], ids=lambda isa: isa.name)
def test_llvm_encodes_conditional_zeros_the_same(isa):
    """Zicond has no other oracle in Debian 12: LLVM selects these two instructions for what they mean."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    xlen = 64 if isa is riscv64 else 32
    target = llvm.Target.from_triple(f"riscv{xlen}-unknown-linux-gnu")
    machine = target.create_target_machine(features="+zicond", opt=2)
    made = machine.emit_object(llvm.parse_assembly(CONDITIONALS.format(xlen=xlen)))
    for line in ("czero.eqz a0, a0, a1", "czero.nez a0, a0, a1"):
        assert isa.assemble(f"{line}; ret") in made


# Programs ---------------------------------------------------------------------------------------------------


def test_labels_lead_forwards_and_backwards():
    code = riscv64.assemble(
        """
        start:  beq a0, zero, end       // leave
        loop:   addi a0, a0, -1         # count
                bne a0, zero, loop; nop
        end:    ret
        """,
        pc=0x1000,
    )
    words = [int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)]
    assert [riscv64.disassemble(word, 4, 0x1000 + 4 * number) for number, word in enumerate(words)] == [
        "beq a0, zero, 0x1010",
        "addi a0, a0, -1",
        "bne a0, zero, 0x1004",
        "addi zero, zero, 0",
        "jalr zero, 0(ra)",
    ]


def test_symbols_are_given_and_found():
    assembled = assemble(
        riscv64, "first: .half 1\n .align 8\nsecond: .dword first, second + 4, out", 0x100, {"out": 7}
    )
    assert assembled.symbols == {"out": 7, "first": 0x100, "second": 0x108}
    assert assembled.code == bytes([1, 0, 0, 0, 0, 0, 0, 0]) + b"".join(
        value.to_bytes(8, "little") for value in (0x100, 0x10C, 7)
    )


def test_directives():
    code = riscv64.assemble('.byte 1, -1, 0xff; .half 0x1234; .word -2; .ascii "a\\n\\0"; .space 3; .align 4')
    assert code == bytes.fromhex("01ffff3412feffffff610a0000000000")


def test_expressions():
    for text, value in [
        ("1 + 2 * 3", 7), ("-(4 - 0x10)", 12), ("1 << 10 | 3", 1027), ("~0 & 0xff", 255), ("010", 10),
        ("a - b", 24), ("0b101 ^ 1", 4), ("100 >> 2", 25),
    ]:  # fmt: skip
        assert assemble(riscv64, f".word {text}", 0, {"a": 30, "b": 6}).code == value.to_bytes(4, "little")


@pytest.mark.parametrize("isa", [riscv64, riscv32], ids=lambda isa: isa.name)
def test_constants_of_every_size_are_loaded(isa):
    generator = random.Random(3)
    bits = 64 if isa is riscv64 else 32
    values = [generator.getrandbits(generator.randrange(1, bits + 1)) for _ in range(120)]
    values += [1 << bit for bit in range(bits)] + [(1 << bit) - 1 for bit in range(bits + 1)]
    memory = FlatMemory()
    memory.map(PC, 0x1000, 7)
    cpu = ReferenceExecutor(isa.name, memory)
    for value in values:
        memory.write(PC, isa.assemble(f"li a0, {value}; li a1, -{value}; ebreak"))
        cpu.pc = PC
        assert cpu.run().reason == StopReason.BREAKPOINT
        assert (cpu.x[10], cpu.x[11]) == (value, -value % (1 << bits)), hex(value)


@pytest.mark.parametrize("isa", [riscv64, riscv32], ids=lambda isa: isa.name)
def test_far_addresses_are_reached(isa):
    memory = FlatMemory()
    memory.map(PC, 0x1000, 7)
    cpu = ReferenceExecutor(isa.name, memory)
    for target in (PC + 0x900, PC - 0x900, PC + 0x7FE, PC + 0x800, 0x7FFFF000, 0x12345678):
        memory.write(PC, isa.assemble(f"la a0, {target:#x}; ebreak", PC))
        cpu.pc = PC
        cpu.run()
        assert cpu.x[10] == target
        memory.write(PC, isa.assemble(f"nop; call {target:#x}", PC))
        cpu.pc = PC
        cpu.run(3)
        assert (cpu.pc, cpu.x[1]) == (target, PC + 12)


def test_the_shortest_form_that_reaches_is_chosen():
    def length(parcel: u16) -> u8:
        return u8(2) if parcel & 1 == 0 else u8(4)

    isa = InstructionSet("sized", "Short and long jumps", 2, length)
    isa.number_field("near", operand="to", signed=True)
    isa.number_field("far", operand="to", signed=True)
    isa.instruction("near[7:0] 0000 0010", "go {pc+to}")(go)
    isa.instruction("far[23:0] 0000 0001", "go {pc+to}")(go)
    isa.build()
    close = "start: " + ".half 0\n" * 50 + "go start\n"
    assert len(isa.assemble(close)) == 102
    assert len(isa.assemble(f"{close} go start; go end\n .space 200\n end:")) == 102 + 2 + 4 + 200
    # A jump over a jump that had to grow has to grow as well.
    chain = "\n".join(f"l{number}: go l{number + 30}" for number in range(200))
    assert isa.assemble(chain + "\n.space 90\n" + "\n".join(f"l{200 + n}:" for n in range(30)))


def go(cpu, to: u8) -> None:
    cpu.jump(to)


# Mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("addi a0, a1, 5000", "imm cannot be 5000: it is -2048 to 2047"),
        ("frobnicate a0", "riscv64 has no instruction frobnicate"),
        ("addi a0, a1", "the form is addi {rd}, {rs1}, {imm}"),
        ("add a0, a1, x77", "'x77' is no register for rs2"),
        ("fadd.d fa0, a0, fa1", "'a0' is no register for rs1"),
        ("beq a0, a1, 0x101", "imm cannot be 249: it is -4096 to 4094 in steps of 2"),
        ("c.addi16sp sp, 8", "imm cannot be 8: it is -512 to 496 in steps of 16, but not 0"),
        ("c.lui sp, 5", "these operands are reserved, or mean another instruction"),
        ("c.lw a0, 4(t0)", "rs1 cannot be 5"),
        ("j nowhere", "there is no nowhere"),
        ("addi a0, a1, 1 +", "'1+' is no number"),
        ("addi a0, a1, 1.5", "'1.5' is no number"),
        ("slli a0, a1, 64", "shamt cannot be 64: it is 0 to 63"),
        (".quux 1", "there is no directive .quux"),
        (".byte 256", "256 does not fit into 1 byte"),
        (".ascii no", "a string stands in double quotes"),
        ("x: x:", "this label is there twice"),
        (".word 1 << 99999", "'1 << 99999' is no number"),
    ],
)
def test_mistakes_are_named_with_their_line(line, reason):
    with pytest.raises(AssemblyError, match=re.escape(reason)) as caught:
        riscv64.assemble(f"nop\n  {line}  // comment\n", 4)
    assert str(caught.value).startswith("line 2: ")
    assert "\n" not in str(caught.value)
