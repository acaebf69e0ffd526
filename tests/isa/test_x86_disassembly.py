"""Decoding and disassembly of x86 against capstone: every form, and random bytes; the native decoder, too."""

import random
import re

import capstone
import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.isa.x86 import i386, x86_64
from anyvirt.isa.x86.machine import FLAT, LONG, REAL

from ..cpu.x86_machines import encode

ADDRESS = 0x1000000
EXAMPLES = 5
RANDOM = 20_000
MODES = {
    "64": (x86_64, LONG, capstone.CS_MODE_64),
    "32": (i386, FLAT, capstone.CS_MODE_32),
    "16": (i386, REAL, capstone.CS_MODE_16),
}
PREFIXES = bytes.fromhex("262e363e64656667f0f2f3")
STRINGS = "movs|cmps|stos|lods|scas"
NUMBER = re.compile(r"(?:- ?)?\b(?:0x[0-9a-f]+|\d+)\b")
SAYS_NOTHING = re.compile(
    rf"^((rep|repe|repz|repne|repnz|lock|xacquire|xrelease|notrack|bnd|data16|addr32) )+(?!({STRINGS}))"
)
ALIASES = (
    (r" \+ [re]iz(\*\d)?", ""),  # an index that is none
    (r"\[[re]iz(\*\d)? (\+ )?", "["),
    (rf"({STRINGS})([bwdq]) .*", r"\1\2"),
    (r"^rep(ne|nz|z|e)? (movs|stos|lods)", r"\2"),
    (r"^repz", "repe"),
    (r"^repnz", "repne"),
    (r"^movabs", "mov"),
    (r"^(sal|rol|ror|rcl|rcr|shl|shr|sar) ([^,]*), (0x)?1$", r"\1 \2"),
    (r"^xchg ([re]?)ax, \1ax$", "nop"),
    (r"^pause$", "nop"),
    (r"^xchg (.*), (.*)$", lambda match: "xchg " + ", ".join(sorted(match.groups()))),
    (r"^test (.*), (.*)$", lambda match: "test " + ", ".join(sorted(match.groups()))),
    (r"^sal ", "shl "),
    (r"^(cwde|cdqe)$", "cbw"),  # capstone does not tell them apart in 16-bit code
    (r"^(cdq|cqo)$", "cwd"),
    (r"^(jmp|call) (word|dword|qword) ptr", r"\1 ptr"),
    (r"^(nop) .*", r"\1"),
    (r"^movsxd (r\d+w|[a-z]+), e?", r"movsxd \1, "),
    (r"^lea (\w+), (word|dword|qword) ptr", r"lea \1,"),
)
"""Different spellings of the same."""


@pytest.fixture(params=MODES)
def setting(request):
    description, mode, flag = MODES[request.param]
    return description, mode, capstone.Cs(capstone.CS_ARCH_X86, flag)


def ours(description, mode, code):
    found = description.decode(code, mode)
    if found is None or found.length > len(code):
        return None
    return found.length, description.disassemble(found.word, 0, ADDRESS)


def theirs(oracle, code):
    for _, size, mnemonic, operands in oracle.disasm_lite(code, ADDRESS):
        return size, f"{mnemonic} {operands}".strip()
    return None


def spelled(text):
    """The usual spelling, with `#` for numbers; and the numbers."""
    text = SAYS_NOTHING.sub("", text)
    for pattern, replacement in ALIASES:
        text = re.sub(pattern, replacement, text)
    mask = 0xFF if text.startswith(("test", "enter")) else 0xFFFF
    numbers = [int(match.replace(" ", ""), 0) & mask for match in NUMBER.findall(text)]
    return NUMBER.sub("#", text).replace(" + #", " #"), numbers


def same(a, b):
    """Lengths and texts; of numbers the low bits, as signs and sizes are shown in different ways."""
    return a is not None and b is not None and a[0] == b[0] and spelled(a[1]) == spelled(b[1])


WRONG_THERE = (
    (r"66.*f3.*90|f3.*66.*90", "pause with a prefix for 16 bits"),
    (r"(66|67).*63", "movsxd with 16 bits reads 16 bits; movsxd with addresses of 32 bits"),
    (
        r"66(4.)*(0f8|e[89b]|c[23]|9c|9d|7|e[0-3])",
        "in 64-bit code it does nothing to a near branch; REX.W is stronger",
    ),
    (
        r"(4.)*(64|65)(26|2e|36|3e)|(26|2e|36|3e)(64|65)",
        "segments that are ignored leave another one in force",
    ),
    (r".{0,8}0f1[9c-e]", "instructions that do nothing but are reserved for hints"),
    (r"(66|67|[2346][0-9a-f])*90", "nop with prefixes"),
)
"""Bytes of which capstone knows nothing or something wrong."""


def is_wrong_there(code):
    return any(re.match(pattern, code.hex()) for pattern, _ in WRONG_THERE)


def test_every_form(setting):
    description, mode, oracle = setting
    generator = random.Random(0)
    wrong = []
    for pattern in description.patterns:
        for _ in range(EXAMPLES):
            code = encode(generator, pattern, mode)
            if code is None or is_wrong_there(code):
                continue
            a, b = ours(description, mode, code), theirs(oracle, code)
            if not same(a, b):
                wrong.append((code.hex(), a, b))
    assert not wrong


NOT_DESCRIBED = {
    "mov": "segment, control and debug registers",
    "push": "segment registers",
    "pop": "segment registers, and memory in ways that no encoding has",
    "nop": "prefetch hints",
    "jmp": "to other segments",
    "call": "to other segments",
    "bswap": "16 bits: undefined",
    "movsd": "SSE",
    "cmpsd": "SSE",
    "xchg": "nothing to lock",
}
"""Mnemonics that others know in more encodings than we do, and which."""


def without_ignored_segments(found, mode):
    """In 64-bit code capstone shows prefixes that change nothing."""
    if mode != LONG or found is None:
        return found
    return found[0], re.sub(r"\b[ecsd]s:", "", found[1])


def random_code(generator, mode):
    """Random bytes with prefixes that mean something, and opcodes of both maps."""
    code = bytes(generator.choice(PREFIXES) for _ in range(generator.choice([0, 0, 0, 1])))
    if mode == LONG and generator.random() < 0.4:
        code += bytes([generator.randrange(0x40, 0x50)])
    return code + generator.choice([b"", b"", b"\x0f"]) + generator.randbytes(13)


def test_random_bytes(setting):
    """What we take for an instruction is one; what we do not is none, or listed."""
    description, mode, oracle = setting
    generator = random.Random(1)
    known = {pattern.mnemonic for pattern in description.patterns}
    wrong, agreed = [], 0
    for _ in range(RANDOM):
        code = random_code(generator, mode)
        a, b = ours(description, mode, code), theirs(oracle, code[:15])
        if {0xF0, 0xF2, 0xF3} & set(code[:3]) or is_wrong_there(code):
            # Prefixes where the manual has none: capstone takes or refuses them as it likes.
            continue
        if a is None:
            name = "" if b is None else spelled(b[1])[0].split()[0]
            if name in known and name not in NOT_DESCRIBED:
                wrong.append((code.hex(), a, b))
        elif not same(a, without_ignored_segments(b, mode)):
            wrong.append((code.hex(), a, b))
        else:
            agreed += 1
    assert not wrong
    assert agreed > RANDOM // 4


@pytest.mark.parametrize("isa", ["x86_64", "i386"])
def test_the_native_decoder_takes_the_same_for_instructions(isa):
    """It finds the same length, and the same bytes illegal."""
    mode = LONG if isa == "x86_64" else FLAT
    description = x86_64 if isa == "x86_64" else i386
    memory = FlatMemory(1 << 32)
    memory.map(ADDRESS, 4096, 7)
    cpu = Interpreter(isa, memory)
    generator = random.Random(2)
    for _ in range(RANDOM):
        code = random_code(generator, mode)[:16].ljust(16, b"\x90")
        memory.write(ADDRESS, code)
        cpu.invalidate(ADDRESS, 16)
        cpu.pc = ADDRESS
        for number in range(8):
            cpu.registers("r")[number] = ADDRESS + 0x800
        stop = cpu.run(1)
        found = description.decode(code, mode)
        if found is None:
            assert stop.reason == StopReason.ILLEGAL_INSTRUCTION, code.hex()
        elif stop.reason == StopReason.ILLEGAL_INSTRUCTION:
            assert found.pattern.mnemonic == "ud2", code.hex()
        elif stop.reason == StopReason.BUDGET and found.pattern.mnemonic in ("add", "mov", "test", "nop"):
            assert stop.pc == ADDRESS + found.length, code.hex()
