"""MIPS32 in both byte orders: random streams in every executor and in Unicorn."""

import random

import pytest

from . import slices

unicorn = pytest.importorskip("unicorn")
constants = pytest.importorskip("unicorn.mips_const")

GP, SP = 28, 29
SIZES = {"lh": 2, "lhu": 2, "lw": 4, "sh": 2, "sw": 4, "ll": 4, "sc": 4}
# Each at most jumps over a few instructions, never from a delay slot.
LEAVING = {"j", "jal", "jr", "jr.hb", "jalr", "jalr.hb", "syscall", "break"}
DIVISIONS = {"div", "divu"}


def adjust(generator, pattern, word):
    values = pattern.decode(word)
    name = pattern.mnemonic
    if "offset" in values:
        return slices.put(pattern, word, offset=4 * generator.randrange(2, 5))
    if "(" in pattern.assembly:
        size = SIZES.get(name, 1)
        word = slices.put(
            pattern, word, rs=generator.choice((GP, SP)), imm=generator.randrange(-32768, 32768, size)
        )
    if name == "ins" and values["msb"] < values["pos"]:
        return None
    if name == "ext" and values["pos"] + values["size"] > 32:
        return None
    written = "rd" if "rd" in values else "rt"
    if values.get(written) in (GP, SP):
        return None
    return word


JUMPS = """
    jal first
    addiu $t0, $t0, 1
    addiu $t0, $t0, 2
first:
    addiu $t9, $ra, 20
    jalr $t8, $t9
    addiu $t1, $t1, 1
    addiu $t1, $t1, 2
    j second
    addiu $t2, $t2, 1
    addiu $t2, $t2, 2
second:
    addiu $t9, $t8, 32
    jr $t9
    addiu $t3, $t3, 1
    addiu $t3, $t3, 2
"""


def machine(isa):
    endian = unicorn.UC_MODE_BIG_ENDIAN if isa == "mips" else unicorn.UC_MODE_LITTLE_ENDIAN
    return slices.Slice(
        isa,
        unicorn.UC_ARCH_MIPS,
        unicorn.UC_MODE_MIPS32 | endian,
        {"r": [constants.UC_MIPS_REG_0 + number for number in range(32)]},
        scalars={
            "hi": slices.register(constants.UC_MIPS_REG_HI, 32, slices.signed_word),
            "lo": slices.register(constants.UC_MIPS_REG_LO, 32, slices.signed_word),
        },
        pointers={GP: slices.MIDDLE, SP: slices.MIDDLE + 4096},
        adjust=adjust,
        jumps=JUMPS,
        model=constants.UC_CPU_MIPS32_74KF,
    )


@pytest.fixture(scope="module", params=["mips", "mipsel"])
def setting(request):
    slice_ = machine(request.param)
    return slice_, slices.Oracle(slice_), [slices.Guest(slice_, make) for make in slices.EXECUTORS]


def usable(slice_):
    return [
        pattern
        for pattern in slice_.description.patterns
        if pattern.mnemonic not in LEAVING and pattern.mnemonic != "rdhwr"
    ]


def is_branch(pattern):
    return "offset" in pattern.by_name


def test_forms(setting):
    slice_, oracle, guests = setting
    generator = random.Random(1)
    for pattern in usable(slice_):
        for attempt in range(6):
            words = [slice_.instance(generator, pattern)]
            if pattern.mnemonic in DIVISIONS:
                # By zero the result is unpredictable: a divisor that is not.
                words = [0x34080000 | generator.randrange(1, 1 << 16), slices.put(pattern, words[0], rt=8)]
            slices.check(slice_, oracle, guests, attempt, words)
            if is_branch(pattern):
                slices.check(slice_, oracle, guests, attempt, [*words, 0x24420001, 0x24630001, 0x24840001])


def test_streams(setting):
    slice_, oracle, guests = setting
    translating = [slices.Guest(slice_, make) for make in slices.TRANSLATORS]
    patterns = [pattern for pattern in usable(slice_) if pattern.mnemonic not in DIVISIONS]
    calm = [p for p in patterns if p.mnemonic not in ("add", "addi", "sub") and p.mnemonic[0] != "t"]
    straight = [pattern for pattern in calm if not is_branch(pattern)]
    for seed in range(60):
        generator = random.Random(seed)
        words = []
        while len(words) < 40:
            if generator.random() < 0.02:
                words += slice_.jumping(len(words))
            pattern = generator.choice(calm)
            words.append(slice_.instance(generator, pattern))
            if is_branch(pattern):
                words.append(slice_.instance(generator, generator.choice(straight)))
        slices.check(slice_, oracle, guests + translating * (seed < slices.TRANSLATED_STREAMS), seed, words)
