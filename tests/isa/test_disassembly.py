"""Decoding and disassembly of RISC-V against capstone: every 16-bit encoding, a sample of 32-bit ones."""

import itertools
import random
import re

import capstone
import pytest

from anyvirt.isa.riscv32 import riscv32
from anyvirt.isa.riscv64 import riscv64

EXAMPLES_PER_PATTERN = 120
RANDOM_WORDS = 200_000
MODES = {riscv64: capstone.CS_MODE_RISCV64, riscv32: capstone.CS_MODE_RISCV32}

# Where capstone writes another mnemonic for the same instruction (there is no option against it).
ALIASES = [
    (r"fsgnj\.([sd]) (\w+), (\w+), \3", r"fmv.\1 \2, \3"),
    (r"fsgnjn\.([sd]) (\w+), (\w+), \3", r"fneg.\1 \2, \3"),
    (r"fsgnjx\.([sd]) (\w+), (\w+), \3", r"fabs.\1 \2, \3"),
    (r"sub(w?) (\w+), zero, (\w+)", r"neg\1 \2, \3"),
    (r"slt (\w+), (\w+), zero", r"sltz \1, \2"),
    (r"slt (\w+), zero, (\w+)", r"sgtz \1, \2"),
    (r"sltu (\w+), zero, (\w+)", r"snez \1, \2"),
    (r"sltiu (\w+), (\w+), 1", r"seqz \1, \2"),
    (r"xori (\w+), (\w+), (?:18446744073709551615|4294967295)", r"not \1, \2"),
    (r"addiw (\w+), (\w+), 0", r"sext.w \1, \2"),
    (r"addi zero, zero, 0", r"nop"),
    (r"addi (\w+), (\w+), 0", r"mv \1, \2"),
    (r"addi (\w+), zero, (\d+)", r"li \1, \2"),
    (r"beq (\w+), zero, (\d+)", r"beqz \1, \2"),
    (r"bne (\w+), zero, (\d+)", r"bnez \1, \2"),
    (r"blt (\w+), zero, (\d+)", r"bltz \1, \2"),
    (r"blt zero, (\w+), (\d+)", r"bgtz \1, \2"),
    (r"bge (\w+), zero, (\d+)", r"bgez \1, \2"),
    (r"bge zero, (\w+), (\d+)", r"blez \1, \2"),
    (r"jal zero, (\d+)", r"j \1"),
    (r"jal ra, (\d+)", r"jal \1"),
    (r"jalr (\w+), (\d+)\((\w+)\)", r"jalr \1, \3, \2"),
    (r"jalr zero, 0\(ra\)", r"ret"),
    (r"jalr zero, 0\((\w+)\)", r"jr \1"),
    (r"jalr ra, 0\((\w+)\)", r"jalr \1"),
    (r"fence iorw, iorw", r"fence"),
]
# What is legal by the manual and unknown to capstone 5, by mnemonic; and why.
ONLY_OURS = {
    "c.slli": "HINT: rd is zero or the amount is 0",
    "c.nop": "HINT: an immediate other than 0",
    "c.li": "HINT: rd is zero",
    "c.lui": "HINT: rd is zero",
    "c.mv": "HINT: rd is zero",
    "c.add": "HINT: rd is zero",
    "fcvt.d.w": "the rounding mode of an exact conversion does not matter",
    "fcvt.d.wu": "the rounding mode of an exact conversion does not matter",
    "fcvt.d.s": "the rounding mode of an exact conversion does not matter",
    "fence": "fields for future use are ignored",
    "fence.i": "fields for future use are ignored",
}
# Extensions that capstone 5 does not know; tests/isa/test_assembler.py has another oracle for them.
UNKNOWN_TO_CAPSTONE = ("Zba", "RV64Zba", "Zbb", "RV64Zbb", "Zbs", "Zicond")
# What capstone shows and the manual reserves, or leaves to modes and extensions that do not exist here.
ONLY_THEIRS = {
    "c.unimp": "all zero: defined to be illegal",
    "c.lui": "reserved: an immediate of 0",
    "mret": "machine mode",
    "sret": "supervisor mode",
    "uret": "user-level interrupts",
    "wfi": "privileged",
    "sfence.vma": "supervisor mode",
    "hfence.gvma": "hypervisor",
    "hfence.bvma": "hypervisor",
}
ONLY_THEIRS_IN = {
    riscv64: {},
    riscv32: {
        **dict.fromkeys(("slli", "srli", "srai"), "shift amounts of 32 and more are reserved"),
        **dict.fromkeys(("c.slli", "c.srli", "c.srai"), "shift amounts of 32 and more: custom extensions"),
    },
}


@pytest.fixture(scope="module", params=MODES, ids=lambda isa: isa.name)
def isa(request):
    return request.param


@pytest.fixture(scope="module")
def oracle(isa):
    return capstone.Cs(capstone.CS_ARCH_RISCV, MODES[isa] | capstone.CS_MODE_RISCVC)


def theirs(isa, oracle, word, length):
    for _, size, mnemonic, operands in oracle.disasm_lite(word.to_bytes(length, "little"), 0):
        if size == length:
            return canonical(isa, f"{mnemonic} {operands}".strip())
    return None


def canonical(isa, text):
    """Numbers in decimal, unsigned."""
    mask = (1 << isa.address_bits) - 1
    return re.sub(r"-?\b(0x[0-9a-f]+|\d+)\b", lambda match: str(int(match[0], 0) & mask), text)


def spellings(text):
    """The ways capstone may write what we write so."""
    yield text
    for pattern, replacement in ALIASES:
        alias, count = re.subn(f"^{pattern}$", replacement, text)
        if count:
            yield alias


def is_control_register_access(text):
    return text is not None and re.match(r"(csr|f[rs]?csr|f[rs]rm|f[rs]flags|rd(cycle|time|instret))", text)


def disagreement(isa, oracle, word, length):
    """None, or what both say, where no documented difference explains it."""
    text = isa.disassemble(word, length)
    ours, other = (None if text is None else canonical(isa, text)), theirs(isa, oracle, word, length)
    if ours == other or (ours is not None and other in spellings(ours)):
        return None
    if ours is None and other.split()[0] in ONLY_THEIRS | ONLY_THEIRS_IN[isa]:
        return None
    if other is None and (
        ours.split()[0] in ONLY_OURS or isa.find(word, length).extension in UNKNOWN_TO_CAPSTONE
    ):
        return None
    # capstone knows names of more control registers, and aliases for some.
    if is_control_register_access(ours) and is_control_register_access(other):
        return None
    return f"{word:#x}: {ours} | {other}"


def test_every_16_bit_encoding(isa, oracle):
    found = [disagreement(isa, oracle, word, 2) for word in range(1 << 16) if word & 3 != 3]
    assert not [text for text in found if text]


def test_32_bit_encodings_of_every_pattern(isa, oracle):
    generator = random.Random(1)
    found = []
    for pattern in isa.patterns:
        if pattern.length == 4:
            for _ in range(EXAMPLES_PER_PATTERN):
                word = pattern.match | generator.getrandbits(32) & ~pattern.mask
                found.append(disagreement(isa, oracle, word, 4))
    assert not [text for text in found if text]


def test_random_32_bit_encodings(isa, oracle):
    generator = random.Random(2)
    found = [disagreement(isa, oracle, generator.getrandbits(32) | 3, 4) for _ in range(RANDOM_WORDS)]
    assert not [text for text in found if text]


def test_control_registers_have_their_names():
    assert riscv64.disassemble(0x00302573, 4) == "csrrs a0, fcsr, zero"
    assert riscv64.disassemble(0xC0002573, 4) == "csrrs a0, cycle, zero"
    assert riscv64.disassemble(0x12302573, 4) == "csrrs a0, 0x123, zero"


def test_every_16_bit_encoding_has_one_meaning(isa):
    """Of the patterns that match, each fixes all bits that the less specific ones fix; all are reached."""
    short = [pattern for pattern in isa.patterns if pattern.length == 2]
    reached = set()
    for word in range(1 << 16):
        matching = [pattern for pattern in short if pattern.matches(word)]
        for specific, general in itertools.pairwise(matching):
            assert specific.mask & general.mask == general.mask != specific.mask, hex(word)
        assert isa.find(word, 2) is (matching[0] if matching else None)
        reached |= set(matching[:1])
    assert reached == set(short)
