"""A64: random streams in every executor and in Unicorn."""

import random

import pytest

from anyvirt.isa.aarch64.core import CONDITIONS

from . import slices

unicorn = pytest.importorskip("unicorn")
constants = pytest.importorskip("unicorn.arm64_const")

FRAME, INDEX, STACK = 29, 28, 32
SAVED_STACK, SAVED_FRAME = 26, 27
KEPT = (FRAME, INDEX, STACK, SAVED_STACK, SAVED_FRAME)
# What leaves a stream; Unicorn's `yield` ends the run.
LEAVING = {"b", "bl", "br", "blr", "ret", "svc", "brk", "yield"}
BRANCHES = {"cbz", "cbnz", "tbz", "tbnz", *(f"b.{name}" for name in CONDITIONS)}
NZCV = {"n": 31, "z": 30, "c": 29, "v": 28}


JUMPS = """
    bl first
    add x1, x1, #1
first:
    adr x9, second
    blr x9
    add x1, x1, #2
second:
    adr x9, third
    br x9
    add x1, x1, #4
third:
    adr x30, fourth
    ret x30
    add x1, x1, #8
fourth:
    b fifth
    add x1, x1, #16
fifth:
"""


def flag(bit):
    def read(engine):
        return engine.reg_read(constants.UC_ARM64_REG_NZCV) >> bit & 1

    def write(engine, value):
        others = engine.reg_read(constants.UC_ARM64_REG_NZCV) & ~(1 << bit)
        engine.reg_write(constants.UC_ARM64_REG_NZCV, others | value << bit)

    return slices.Scalar(read, write, lambda generator: generator.randrange(2))


def adjust(generator, pattern, word):
    if "xsn" in pattern.source and "[" in pattern.assembly:
        # A base; 31 is the stack pointer.
        word = slices.put_field(pattern, word, "n", generator.choice((FRAME, 31)))
        word = slices.put_field(pattern, word, "m", INDEX)
        if "imm" in pattern.by_name:
            step = generator.choice((1, 8))
            word = slices.put(pattern, word, imm=pattern.decode(word)["imm"] // step * step)
        if "stlr" in pattern.mnemonic or "x" in pattern.mnemonic or "ldar" in pattern.mnemonic:
            word = slices.put_field(pattern, word, "n", FRAME)
    elif pattern.mnemonic.startswith("ldr") and "offset" in pattern.by_name:
        word = slices.put(pattern, word, offset=generator.randrange(0, 8) * 4)
    elif "offset" in pattern.by_name and pattern.mnemonic not in ("adr", "adrp"):
        return slices.put(pattern, word, offset=4 * generator.randrange(1, 4))
    values = pattern.decode(word)
    loads = "ld" in pattern.mnemonic
    written = ("d", "s", "t", "t2") if loads or pattern.mnemonic == "mrs" else ("d", "s")
    # The same register twice as a target is unpredictable.
    twice = (loads and values.get("t") == values.get("t2", -1)) or (
        "s" in values and values["s"] in (values["t"], values["n"])
    )
    return None if twice or any(values.get(name) in KEPT for name in written) else word


def restore(pattern):
    """What puts the base back that a form with write-back moves: mov x29, x27; and sp from x26."""
    if "!" in pattern.assembly or "]," in pattern.assembly:
        return [0xAA1B03FD, 0x9100035F]
    return []


@pytest.fixture(scope="module")
def setting():
    numbers = [
        *(constants.UC_ARM64_REG_X0 + number for number in range(29)),
        constants.UC_ARM64_REG_X29,
        constants.UC_ARM64_REG_X30,
        None,
        constants.UC_ARM64_REG_SP,
    ]
    stack = slices.MIDDLE + 4096
    slice_ = slices.Slice(
        "aarch64",
        unicorn.UC_ARCH_ARM64,
        unicorn.UC_MODE_ARM,
        {"x": numbers},
        scalars={
            **{name: flag(bit) for name, bit in NZCV.items()},
            "thread_pointer": slices.register(constants.UC_ARM64_REG_TPIDR_EL0, 64),
        },
        pointers={
            SAVED_STACK: stack,
            SAVED_FRAME: slices.MIDDLE,
            FRAME: slices.MIDDLE,
            INDEX: 248,
            STACK: stack,
        },
        adjust=adjust,
        jumps=JUMPS,
        nop=0xD503201F,
    )
    return slice_, slices.Oracle(slice_), [slices.Guest(slice_, make) for make in slices.EXECUTORS]


def usable(slice_):
    return [pattern for pattern in slice_.description.patterns if pattern.mnemonic not in LEAVING]


def test_forms(setting):
    slice_, oracle, guests = setting
    generator = random.Random(2)
    for pattern in usable(slice_):
        for attempt in range(6):
            words = [slice_.instance(generator, pattern)]
            if pattern.mnemonic in BRANCHES:
                words += [0x91000421, 0x91000442, 0x91000463]
            slices.check(slice_, oracle, guests, attempt, words)


def test_streams(setting):
    slice_, oracle, guests = setting
    translating = [slices.Guest(slice_, make) for make in slices.TRANSLATORS]
    for seed in range(80):
        generator = random.Random(seed)
        # A store-exclusive of another width than the load's may fail or not.
        patterns = [p for p in usable(slice_) if "xr" not in p.mnemonic or p.match >> 30 & 1 == seed & 1]
        words = []
        while len(words) < 40:
            if generator.random() < 0.02:
                words += slice_.jumping(len(words))
            pattern = generator.choice(patterns)
            words += [slice_.instance(generator, pattern), *restore(pattern)]
        slices.check(slice_, oracle, guests + translating * (seed < slices.TRANSLATED_STREAMS), seed, words)
