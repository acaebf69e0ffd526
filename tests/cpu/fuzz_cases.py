"""Hostile programs from seeds: random code, memory maps and registers for RISC-V executors.

Everything about a case follows from its seed and kind, so that a seed is all that has to be kept of one.
"""

import random
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from anyvirt.cpu.memory import Protection
from anyvirt.jit.ahead import instruction_set

from .machines import BOXED, DOUBLES, INTERESTING, SINGLES

PAGE = 4096
SIZES = (1 << 24, 1 << 30, 1 << 38)
READ, WRITE, EXECUTE = Protection.READ, Protection.WRITE, Protection.EXECUTE
WORD = (1 << 64) - 1

# Registers that no instruction of a mix writes, so that addresses stay addresses for a while.
DATA_BASES = (2, 3, 8, 9)
CODE_BASES = (5, 6)
COUNTER = 31
CONTROL_REGISTERS = (1, 1, 1, 1, 1, 1, 1, 2, 3, 0xC00, 0xC02)
"""fflags most of the time, because what follows lives longer; frm, fcsr, cycle, instret."""
KEPT = {*DATA_BASES, *CODE_BASES, COUNTER}

FENCE_I, EBREAK = 0x0000100F, 0x00100073
POOL_SIZE = 20_000
SLOW = ("fence", "ecall", "ebreak", "c.ebreak", "fence.i")
"""Mnemonics that a mix has seldom."""


class Kind(StrEnum):
    """How the code of a case comes about."""

    NOISE = "noise"
    """Uniformly random bytes."""
    MIX = "mix"
    """Valid instructions with random operands; short jumps, also into the middle of instructions."""
    LOOP = "loop"
    """A mix that is repeated: what is hot is compiled."""
    MUTATED = "mutated"
    """A mix with some bits flipped."""
    REWRITTEN = "rewritten"
    """A mix that stores into its own code, each time followed by fence.i."""
    REWRITING = "rewriting"
    """A mix whose stores reach its code, with no fence.i: what runs then is not defined, but harmless."""

    @property
    def is_comparable(self) -> bool:
        """Whether every executor has to do the same."""
        return self is not Kind.REWRITING


@dataclass(frozen=True)
class Mapped:
    """A range of guest memory and what is in it."""

    start: int
    content: bytes
    protection: Protection


@dataclass(frozen=True)
class Case:
    """Where everything is when an executor begins."""

    seed: int
    kind: Kind
    size: int
    mapped: tuple[Mapped, ...]
    x: tuple[int, ...]
    f: tuple[int, ...]
    fcsr: int
    pc: int
    budgets: tuple[int, ...]
    entries: tuple[int, ...]
    """Addresses of code that tiers may be asked to translate first."""


def make_case(seed, kind=None):
    """The case of a seed; `kind` None: one that the seed chooses."""
    generator = random.Random(seed)
    chosen = generator.choice(list(Kind))
    kind = kind or chosen
    size = generator.choice(SIZES)
    pages = _places(generator, size)
    code = _code(generator, kind, 2 * PAGE)
    mapped = _mapped(generator, kind, pages, code)
    count = generator.choice((1, 5, 50, 400))
    start = pages["code"]
    entries = [start + generator.randrange(0, 2 * PAGE, 2) for _ in range(2)]
    return Case(
        seed,
        kind,
        size,
        mapped,
        tuple(_registers(generator, kind, pages, size)),
        tuple(_float(generator) for _ in range(32)),
        generator.randrange(256) if generator.random() < 0.1 else generator.randrange(5) << 5,
        _start(generator, kind, start),
        tuple(generator.randint(1, count) for _ in range(3)),
        (start, *entries),
    )


# Memory -------------------------------------------------------------------------------------------------


def _places(generator, size):
    """Where code and data are: anywhere, side by side, or at the ends of the address space."""
    top = size // PAGE
    slots = [1, 2, 16, 17, 100, top // 2, top - 8]
    base = generator.choice(slots) * PAGE
    places = {"code": base, "data": base + 4 * PAGE}
    if generator.random() < 0.3:
        places["data"] = base + 2 * PAGE
    if generator.random() < 0.3:
        places["code"], places["data"] = size - 2 * PAGE, base
    elif generator.random() < 0.3:
        places["data"] = size - 2 * PAGE
        if places["code"] + 2 * PAGE > places["data"]:
            places["code"] = 16 * PAGE
    return places


def _mapped(generator, kind, pages, code):
    """The ranges of a memory map; some have a page that is missing or protected."""
    protection = READ | EXECUTE
    if kind in (Kind.REWRITTEN, Kind.REWRITING):
        protection |= WRITE
    elif generator.random() < 0.1:
        protection = EXECUTE
    mapped = [
        Mapped(pages["code"], code[:PAGE], protection),
        Mapped(pages["data"], generator.randbytes(PAGE), READ | WRITE),
    ]
    second = generator.choice((protection, protection, protection, READ, READ | WRITE, Protection.NONE, None))
    if kind not in (Kind.REWRITTEN, Kind.REWRITING) and second is not None and second & WRITE:
        second = READ
    if second is not None:
        mapped.append(Mapped(pages["code"] + PAGE, code[PAGE:], second))
    second = generator.choice((READ | WRITE, READ | WRITE, READ, Protection.NONE, None))
    if second is not None:
        mapped.append(Mapped(pages["data"] + PAGE, generator.randbytes(PAGE), second))
    return tuple(mapped)


# Registers ----------------------------------------------------------------------------------------------


def _registers(generator, kind, pages, size):
    addresses = [
        place + offset
        for place in (pages["data"], pages["code"])
        for offset in (0, 8, PAGE - 8, PAGE - 4, PAGE, 2 * PAGE - 8, 2 * PAGE, -8)
    ]
    edges = [0, size - 1, size - 8, size, -1, -8, 1 << 31, 1 << 38, (1 << 38) - 4, 1 << 63]
    values = [0] + [_value(generator, addresses, edges) for _ in range(31)]
    for register in DATA_BASES:
        values[register] = pages["data"] + generator.randrange(256, PAGE - 512) & -8
        if generator.random() < 0.1:
            values[register] += generator.randrange(PAGE)
    if kind is Kind.REWRITING:
        values[generator.choice(DATA_BASES)] = pages["code"] + generator.randrange(0, PAGE, 2)
    for register in CODE_BASES:
        values[register] = pages["code"] + generator.randrange(0, 2 * PAGE, generator.choice((1, 2, 4)))
    values[COUNTER] = generator.choice((1, 3, 40, 3000))
    return [value & WORD for value in values]


def _value(generator, addresses, edges):
    pool = generator.random()
    if pool < 0.3:
        return generator.choice(addresses)
    if pool < 0.4:
        return generator.choice(edges)
    if pool < 0.6:
        return generator.choice(INTERESTING)
    return generator.getrandbits(generator.choice((5, 12, 32, 64)))


def _float(generator):
    match generator.randrange(4):
        case 0:
            return generator.choice(DOUBLES)
        case 1:
            return generator.choice(SINGLES) | BOXED
        case 2:
            return generator.getrandbits(32) | BOXED
    return generator.getrandbits(64)


def _start(generator, kind, code):
    """Mostly well inside of the code; sometimes the last bytes of a page, or nowhere."""
    if kind is Kind.LOOP:
        return code
    if generator.random() < 0.9:
        return code + generator.randrange(0, PAGE // 2, 2)
    return generator.choice((
        code + PAGE - 2, code + 2 * PAGE - 2, code - 2, code + 1,
        0, (1 << 38) - 2, 1 << 38, WORD - 1, WORD,
    ))  # fmt: skip


# Code ---------------------------------------------------------------------------------------------------


def _code(generator, kind, size):
    if kind is Kind.NOISE:
        return generator.randbytes(size)
    if kind is Kind.LOOP:
        return _loop(generator, size)
    code = _mix(generator, size, rewriting=kind is Kind.REWRITTEN)
    if kind is Kind.MUTATED:
        code = bytearray(code)
        for _ in range(generator.choice((3, 30, 300))):
            code[generator.randrange(size)] ^= 1 << generator.randrange(8)
    return bytes(code)


def _loop(generator, size):
    """Some mix up to a branch back to the beginning while the counter counts down, then mix to the end."""
    body = _mix(generator, generator.choice((16, 60, 250)))
    body += _encoded(0xFFFF8F93)  # addi x31, x31, -1
    body += _encoded(_with_branch_offset(0x000F9063, -len(body)))  # bnez x31, back
    return (body + _mix(generator, size - len(body)))[:size]


def _encoded(word, length=4):
    return word.to_bytes(length, "little")


def _mix(generator, size, *, rewriting=False):
    instructions = generator.choices(_pool(), k=size // 2)
    if not rewriting:
        return b"".join(encoded for encoded, _ in instructions)[:size]
    code = bytearray()
    for encoded, stores in instructions:
        if generator.random() < 0.1:
            code += _rewrite(generator)
        code += encoded
        if stores:
            code += _encoded(FENCE_I)
    return bytes(code[:size])


def _rewrite(generator):
    """A store of some instruction to a place in the code, and fence.i."""
    store = generator.choice((0x0002A023, 0x00029023))  # sw, sh zero, 0(t0)
    source = generator.randrange(32) << 20
    offset = generator.randrange(-1024, 1024) & -2
    fields = (offset >> 5 & 0x7F) << 25 | (offset & 31) << 7
    return _encoded(store | source | fields) + _encoded(FENCE_I)


def _is_store(pattern):
    base = pattern.mnemonic.removeprefix("c.")
    return base.startswith(("sb", "sh", "sw", "sd", "fsw", "fsd", "amo", "sc.")) and "(" in pattern.assembly


@cache
def _patterns():
    patterns = instruction_set("riscv64").patterns
    common = [pattern for pattern in patterns if pattern.mnemonic not in SLOW]
    return common, [pattern for pattern in patterns if pattern.mnemonic in SLOW]


@cache
def _pool():
    """Encoded instructions that mixes are made of, and whether each is a store: the same for all cases."""
    generator = random.Random(0)
    pool = []
    while len(pool) < POOL_SIZE:
        pattern, word = _instruction(generator)
        pool.append((_encoded(word, pattern.length), _is_store(pattern)))
    return pool


def _instruction(generator):
    """A valid instruction that writes none of the kept registers: its pattern and its word."""
    common, slow = _patterns()
    isa = instruction_set("riscv64")
    while True:
        pattern = generator.choice(slow if generator.random() < 0.01 else common)
        word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
        word = _tamed(generator, pattern, word)
        if isa.find(word, pattern.length) is not pattern:
            continue
        values = pattern.decode(word)
        operand = pattern.by_name.get("rd")
        if operand is None or operand.field.registers != "x" or values["rd"] not in KEPT:
            return pattern, word


def _tamed(generator, pattern, word):
    """The instruction with operands that let it succeed, most of the time."""
    mnemonic, has_address = pattern.mnemonic, "(" in pattern.assembly
    if generator.random() < 0.03:
        return word
    if mnemonic in ("c.jr", "c.jalr"):
        word = word & ~(31 << 7) | generator.choice(CODE_BASES) << 7
    elif pattern.length == 2 and has_address and "sp" not in mnemonic:
        # Compressed loads and stores: rs1' in bits 9:7 is x8 or x9.
        word &= ~(6 << 7)
    elif pattern.length == 4 and has_address:
        bases = CODE_BASES if mnemonic == "jalr" else DATA_BASES
        word = word & ~(31 << 15 | 0xF << 28 & ~pattern.mask) | generator.choice(bases) << 15
    elif mnemonic in ("beq", "bne", "blt", "bge", "bltu", "bgeu"):
        offset = 4 if generator.random() < 0.6 else generator.randrange(-16, 48, 2)
        word = _with_branch_offset(word, offset)
    elif mnemonic == "jal":
        word = word & 0xFFF | (generator.randrange(-32, 64, 2) & 0x7FE) << 20
    elif mnemonic.startswith("csrr"):
        word = word & 0xFFFFF | generator.choice(CONTROL_REGISTERS) << 20
    elif "rm" in pattern.by_name:
        word = word & ~(7 << 12) | generator.choice((0, 1, 2, 3, 4, 7)) << 12
    return word


def _with_branch_offset(word, offset):
    """Type B: imm[12|10:5] in bits 31:25, imm[4:1|11] in bits 11:7 (unprivileged manual, 2.3)."""
    high = (offset >> 12 & 1) << 31 | (offset >> 5 & 0x3F) << 25
    return word & 0x01FFF07F | high | (offset >> 1 & 0xF) << 8 | (offset >> 11 & 1) << 7


def listing(case):
    """The code of a case as text, from where it starts."""
    isa = instruction_set("riscv64")
    lines = []
    for part in case.mapped:
        lines.append(f"{part.start:#x}: {len(part.content)} bytes {part.protection}")
        position = max(case.pc - part.start, 0)
        while part.protection & EXECUTE and position < min(
            len(part.content), max(case.pc - part.start, 0) + 400
        ):
            length = 4 if part.content[position] & 3 == 3 else 2
            word = int.from_bytes(part.content[position : position + length], "little")
            pattern = isa.find(word, length)
            text = isa.disassemble(word, length, part.start + position) if pattern else f"{word:#x}"
            lines.append(f"  {part.start + position:#x}: {text}")
            position += length
    return "\n".join(lines)
