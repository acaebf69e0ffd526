"""PowerPC: random streams in every executor and in Unicorn."""

import random

import pytest

from . import slices

unicorn = pytest.importorskip("unicorn")
constants = pytest.importorskip("unicorn.ppc_const")

BASES, INDEX = (29, 30), 28
SAVED = {29: 26, 30: 27}
LEAVING = {"b", "bl", "ba", "bla", "blr", "sc", "bca", "bcla", "bclr", "bclrl", "bcctr", "bcctrl"}
# The result is undefined for a divisor of zero and on overflow.
DIVISIONS = ("divw", "divwu")
SIZES = {"lwarx": 4, "stwcx.": 4}


JUMPS = """
    bl first
    addi r3, r3, 1
first:
    mflr r9
    addi r9, r9, 24
    mtctr r9
    bcctrl 20, 0
    addi r3, r3, 2
    mflr r9
    addi r9, r9, 24
    mtlr r9
    blr
    addi r3, r3, 4
    b second
    addi r3, r3, 8
second:
"""


def adjust(generator, pattern, word):
    name = pattern.mnemonic
    if "offset" in pattern.by_name:
        return slices.put(pattern, word, offset=4 * generator.randrange(1, 4))
    touches = name in ("lmw", "stmw", "dcbz") or pattern.semantics.__module__.endswith("memory")
    if touches:
        word = slices.put(pattern, word, ra=generator.choice(BASES), rb=INDEX)
        if name in ("lmw", "stmw"):
            word = slices.put(pattern, word, imm=generator.randrange(-8000, 8000) * 4)
            if name == "lmw":
                return None
    values = pattern.decode(word)
    kept = (*BASES, INDEX, *SAVED.values())
    written = {"rt"} & set(values) or ({"ra"} & set(values) if not touches else set())
    if any(values[operand] in kept for operand in written):
        return None
    if "update" in pattern.semantics.__name__ and values.get("rt") == values["ra"]:
        return None
    return word


def restore(pattern, word):
    """What puts a base back that an update form moves: mr base, saved."""
    if pattern.semantics.__name__.endswith(("update", "update_indexed")):
        base = pattern.decode(word)["ra"]
        return [0x7C000378 | SAVED[base] << 21 | base << 16 | SAVED[base] << 11]
    return []


@pytest.fixture(scope="module")
def setting():
    slice_ = slices.Slice(
        "ppc",
        unicorn.UC_ARCH_PPC,
        unicorn.UC_MODE_PPC32 | unicorn.UC_MODE_BIG_ENDIAN,
        {
            "r": [constants.UC_PPC_REG_0 + number for number in range(32)],
            "cr": [constants.UC_PPC_REG_CR0 + number for number in range(8)],
        },
        scalars={
            "lr": slices.register(constants.UC_PPC_REG_LR, 32),
            "ctr": slices.register(constants.UC_PPC_REG_CTR, 32),
        },
        pointers={
            26: slices.MIDDLE,
            27: slices.MIDDLE + 4096,
            29: slices.MIDDLE,
            30: slices.MIDDLE + 4096,
            INDEX: 160,
        },
        limits={"cr": 16},
        adjust=adjust,
        jumps=JUMPS,
        nop=0x60000000,
    )
    return slice_, slices.Oracle(slice_), [slices.Guest(slice_, make) for make in slices.EXECUTORS]


def check(slice_, oracle, guests, seed, words):
    """XER, which Unicorn shows only in part, begins as r4 and ends in r4, without its reserved bits."""
    slices.check(slice_, oracle, guests, seed, [0x7C8103A6, *words, 0x7C8102A6, 0x54840644])


def usable(slice_):
    patterns = slice_.description.patterns
    # mfxer shows bits that are reserved here.
    return [p for p in patterns if p.mnemonic not in LEAVING | {"lmw", "mfxer"}]


def is_division(pattern):
    return pattern.mnemonic.rstrip("o.") in DIVISIONS


def divided(generator, pattern, word):
    """A division by a small positive number in r3: li r3, n."""
    return [0x38600000 | generator.randrange(1, 1 << 15), slices.put(pattern, word, rb=3)]


def test_forms(setting):
    slice_, oracle, guests = setting
    generator = random.Random(3)
    for pattern in usable(slice_):
        for attempt in range(6):
            words = [slice_.instance(generator, pattern)]
            if is_division(pattern):
                words = divided(generator, pattern, words[0])
            if "offset" in pattern.by_name:
                words += [0x38210001, 0x38420001, 0x38630001]
            check(slice_, oracle, guests, attempt, words)


def test_streams(setting):
    slice_, oracle, guests = setting
    translating = [slices.Guest(slice_, make) for make in slices.TRANSLATORS]
    patterns = [p for p in usable(slice_) if p.mnemonic not in ("tw", "twi")]
    for seed in range(80):
        generator = random.Random(seed)
        words = []
        while len(words) < 40:
            if generator.random() < 0.02:
                # Behind the instruction that `check` puts first.
                words += slice_.jumping(len(words) + 1)
            pattern = generator.choice(patterns)
            word = slice_.instance(generator, pattern)
            if is_division(pattern):
                words += divided(generator, pattern, word)
            else:
                words += [word, *restore(pattern, word)]
        check(slice_, oracle, guests + translating * (seed < slices.TRANSLATED_STREAMS), seed, words)


def test_multiple_words(setting):
    slice_, oracle, guests = setting
    # lmw r25, 0x7f0(r1) with r1 in the data, after addis r1, 0, high.
    words = [0x3C200000 | slices.MIDDLE >> 16, 0xBB2107F0]
    slices.check(slice_, oracle, guests, 1, words)
