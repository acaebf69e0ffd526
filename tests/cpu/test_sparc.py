"""SPARC V8: random streams in every executor and in Unicorn."""

import random

import pytest

from anyvirt.isa.sparc import sparc

from . import slices

unicorn = pytest.importorskip("unicorn")
constants = pytest.importorskip("unicorn.sparc_const")

BASES, INDEX = (6, 7), 5
NOP = 0x01000000
SIZES = {"ld": 4, "lduh": 2, "ldsh": 2, "st": 4, "sth": 2, "ldd": 8, "std": 8, "swap": 4}
LEAVING = {"call", "jmpl", "flush", "save", "restore"}
WRONG = ("addxcc", "subxcc")
"""Behind a logical instruction or a division, Unicorn 2.1 gives them no carry and no overflow."""
# Unicorn shows neither Y nor the condition codes: they begin and end in global registers.
BEGIN = """
    wr %g3, 0, %y
    addcc %g1, %g2, %g0
"""
END = """
    rd %y, %g3
    or %g0, 0, %g2
    bneg,a negative
    or %g2, 1, %g2
negative:
    be,a zero
    or %g2, 2, %g2
zero:
    bvs,a overflow
    or %g2, 4, %g2
overflow:
    bcs,a carry
    or %g2, 8, %g2
carry:
"""


JUMPS = """
    call first
    add %l1, 1, %l1
    add %l1, 2, %l1
first:
    jmpl %o7 + 24, %l0
    add %l2, 1, %l2
    add %l2, 2, %l2
    jmpl %l0 + 24, %g0
    add %l3, 1, %l3
    add %l3, 2, %l3
"""


def adjust(generator, pattern, word):
    if "offset" in pattern.by_name:
        return slices.put(pattern, word, offset=4 * generator.randrange(2, 5))
    if "[" in pattern.assembly:
        size = SIZES.get(pattern.mnemonic, 1)
        word = slices.put(pattern, word, rs1=generator.choice(BASES), rs2=INDEX)
        word = slices.put(pattern, word, imm=generator.randrange(-4096, 4096, size))
    values = pattern.decode(word)
    pair = pattern.mnemonic == "ldd"
    written = values.get("rd", 0)
    return None if written in (INDEX, *BASES) or (pair and written + 1 in (INDEX, *BASES)) else word


def machine():
    numbers = [getattr(constants, f"UC_SPARC_REG_{group}{number}") for group in "GOLI" for number in range(8)]
    return slices.Slice(
        "sparc",
        unicorn.UC_ARCH_SPARC,
        unicorn.UC_MODE_SPARC32 | unicorn.UC_MODE_BIG_ENDIAN,
        {"r": numbers},
        pointers={5: 160, 6: slices.MIDDLE, 7: slices.MIDDLE + 4096},
        adjust=adjust,
        jumps=JUMPS,
        nop=NOP,
    )


@pytest.fixture(scope="module")
def setting():
    slice_ = machine()
    return slice_, slices.Oracle(slice_), [slices.Guest(slice_, make) for make in slices.EXECUTORS]


def words_of(text):
    code = sparc.assemble(text)
    return [int.from_bytes(code[at : at + 4], "big") for at in range(0, len(code), 4)]


def check(slice_, oracle, guests, seed, words):
    slices.check(slice_, oracle, guests, seed, [*words_of(BEGIN), *words, *words_of(END)])


def is_trap(pattern):
    return pattern.mnemonic[0] == "t" and "+" in pattern.assembly


def is_branch(pattern):
    return "offset" in pattern.by_name


def usable(slice_):
    patterns = slice_.description.patterns
    return [p for p in patterns if p.mnemonic not in LEAVING and not is_trap(p)]


def test_forms(setting):
    slice_, oracle, guests = setting
    generator = random.Random(4)
    for pattern in usable(slice_):
        for attempt in range(6):
            words = [slice_.instance(generator, pattern)]
            if is_branch(pattern):
                words += [0x82006001, 0x84006001, 0x86006001, 0x88006001]
            check(slice_, oracle, guests, attempt, words)


def test_streams(setting):
    slice_, oracle, guests = setting
    translating = [slices.Guest(slice_, make) for make in slices.TRANSLATORS]
    patterns = [
        pattern
        for pattern in usable(slice_)
        if "tv" not in pattern.mnemonic and "div" not in pattern.mnemonic and pattern.mnemonic not in WRONG
    ]
    straight = [pattern for pattern in patterns if not is_branch(pattern)]
    for seed in range(80):
        generator = random.Random(seed)
        words = []
        while len(words) < 40:
            if generator.random() < 0.02:
                words += slice_.jumping(len(words) + len(words_of(BEGIN)))
            pattern = generator.choice(patterns)
            words.append(slice_.instance(generator, pattern))
            if is_branch(pattern):
                words.append(slice_.instance(generator, generator.choice(straight)))
        check(slice_, oracle, guests + translating * (seed < slices.TRANSLATED_STREAMS), seed, words)


def test_windows():
    slice_ = machine()
    windows = [p for p in slice_.description.patterns if p.mnemonic in ("save", "restore")]
    others = [p for p in usable(slice_) if p.mnemonic in ("add", "sub", "xor", "ld", "st", "ldd", "sethi")]
    for seed in range(30):
        # Registers of windows that were never entered are 0 only once.
        oracle = slices.Oracle(slice_)
        guests = [slices.Guest(slice_, make) for make in slices.EXECUTORS]
        generator = random.Random(seed)
        words, depth = [], 0
        while len(words) < 60:
            pattern = generator.choice(windows if generator.random() < 0.4 else others)
            if pattern.mnemonic in ("save", "restore"):
                change = 1 if pattern.mnemonic == "save" else -1
                if not 0 <= depth + change <= 5:
                    continue
                depth += change
            words.append(slice_.instance(generator, pattern))
        check(slice_, oracle, guests, seed, words)
