"""Alpha: random streams in every executor and, as Unicorn does not know it, in qemu-alpha.

Each stream is an ELF program that loads its registers from memory, stores what each instruction left in its
target, and writes everything to its standard output at the end.
"""

import random
import shutil
import struct
import subprocess

import pytest

from anyvirt.cpu.executor import Stop, StopReason
from anyvirt.cpu.memory import FlatMemory
from anyvirt.isa.alpha import alpha

from . import slices

QEMU = shutil.which("qemu-alpha-static") or shutil.which("qemu-alpha")
CODE, DATA, TABLE, RESULTS = 0x10000, 0x40000, 0x80000, 0x90000
CODE_SIZE, TABLE_SIZE, RESULTS_SIZE = 0x10000, 0x1000, 0x10000
OUTPUT, FIRST, SECOND, TABLE_REGISTER = 27, 28, 29, 30
KEPT = (OUTPUT, FIRST, SECOND, TABLE_REGISTER)
MIDDLE = DATA + slices.AREA // 2
SIZES = {"ldwu": 2, "ldl": 4, "ldq": 8, "stw": 2, "stl": 4, "stq": 8}
SIZES |= {"ldl_l": 4, "ldq_l": 8, "stl_c": 4, "stq_c": 8}
LEAVING = {"br", "bsr", "jmp", "jsr", "ret", "jsr_coroutine", "callsys", "bpt", "imb"}
OTHER = {"rpcc", "rduniq", "wruniq", "amask", "implver"}
"""Depend on the machine or the system."""


def usable():
    left_out = LEAVING | OTHER
    return [p for p in alpha.patterns if p.mnemonic not in left_out and not p.mnemonic.endswith("/v")]


def target(pattern, word):
    """The register that an instruction writes, if it writes one."""
    values = pattern.decode(word)
    if "rc" in values:
        return values["rc"]
    writes = pattern.mnemonic.startswith(("ld", "stl_c", "stq_c"))
    return values["ra"] if writes else None


def adjust(generator, pattern, word):
    if "offset" in pattern.by_name:
        return slices.put(pattern, word, offset=4 * generator.randrange(1, 4))
    if "(" in pattern.assembly and pattern.mnemonic not in ("lda", "ldah"):
        size = SIZES.get(pattern.mnemonic, 1)
        word = slices.put(
            pattern, word, rb=generator.choice((FIRST, SECOND)), imm=generator.randrange(-32768, 32760, size)
        )
    return None if target(pattern, word) in KEPT else word


def instance(generator, pattern):
    while True:
        word = pattern.match | generator.getrandbits(32) & ~pattern.mask
        word = adjust(generator, pattern, word)
        if word is not None and alpha.find(word, 4) is pattern:
            return word


def body(generator, patterns):
    """Instructions, each followed by a store of what it left."""
    lines = []
    for place, pattern in enumerate(patterns):
        word = instance(generator, pattern)
        lines.append(word)
        written = target(pattern, word)
        if written is not None:
            stq = 0x2D << 26 | written << 21 | OUTPUT << 16 | (8 * place - 0x8000) & 0xFFFF
            lines.append(stq)
        elif "offset" in pattern.by_name:
            lines += [0x2C << 26 | number << 21 | OUTPUT << 16 for number in (1, 2)]
    return lines


def program(words):
    """The stream with what loads registers before and what writes results behind it."""
    registers = [number for number in range(31) if number != TABLE_REGISTER]
    before = [f"ldah $sp, {TABLE >> 16}($zero)"]
    before += [f"ldq {alpha.register_files['r'].names[number]}, {8 * number}($sp)" for number in registers]
    after = [f"stq {alpha.register_files['r'].names[number]}, {8 * number}($sp)" for number in registers]
    for address, size in ((TABLE, 256), (DATA, slices.AREA), (RESULTS, RESULTS_SIZE)):
        after += ["lda $v0, 4($zero)", "lda $a0, 1($zero)", f"ldah $a1, {address >> 16}($zero)"]
        after += [f"ldah $a2, {size >> 16}($zero)", f"lda $a2, {size & 0xFFFF}($a2)", "callsys"]
    after += ["lda $v0, 1($zero)", "lda $a0, 0($zero)", "callsys"]
    nop = 0x47FF041F.to_bytes(4, "little")
    code = b"".join(word.to_bytes(4, "little") for word in words)
    return alpha.assemble("\n".join(before)) + code + 4 * nop, alpha.assemble("\n".join(after))


def elf(code, segments):
    """An executable with the code at CODE and further segments at their addresses."""
    parts = [(CODE, code, 7), *((address, data, 6) for address, data in segments)]
    offset = 0x10000
    headers, content = b"", b""
    for address, data, flags in parts:
        headers += struct.pack(
            "<IIQQQQQQ", 1, flags, offset + len(content), address, address, len(data), len(data), 0x10000
        )
        content += data + bytes(-len(data) % 0x10000)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 0x9026, 1, CODE, 64, 0, 0, 64, 56, len(parts), 0, 0, 0)
    return (header + headers).ljust(offset, b"\0") + content


def start(generator):
    values = [slices.Start.random_word(generator, 64) for _ in range(32)]
    values[OUTPUT], values[FIRST], values[SECOND] = RESULTS + 0x8000, MIDDLE, MIDDLE + 8192
    return struct.pack("<32Q", *values), generator.randbytes(slices.AREA)


def expected(path, code, table, data):
    path.write_bytes(elf(code, [(DATA, data), (TABLE, table), (RESULTS, bytes(RESULTS_SIZE))]))
    path.chmod(0o755)
    return subprocess.run([QEMU, path], capture_output=True, timeout=60, check=True).stdout


def actual(make, code, table, data):
    """The same program here, with its three kinds of system calls served."""
    memory = FlatMemory(1 << 32)
    memory.map(CODE, CODE_SIZE, 7)
    for address, content, size in (
        (DATA, data, slices.AREA),
        (TABLE, table, TABLE_SIZE),
        (RESULTS, b"", RESULTS_SIZE),
    ):
        memory.map(address, size, 3)
        memory.write(address, content)
    memory.write(CODE, code)
    cpu = make("alpha", memory)
    cpu.pc = CODE
    output = b""
    registers = cpu.registers("r")
    while True:
        stop = cpu.run()
        assert stop.reason == StopReason.SYSTEM_CALL, stop
        if registers[0] == 1:
            return output
        output += memory.read(registers[17], registers[18])
        registers[0], registers[19] = registers[18], 0
        cpu.pc = stop.next_pc


@pytest.mark.skipif(QEMU is None, reason="needs qemu-alpha")
@pytest.mark.parametrize("make", slices.EXECUTORS)
@pytest.mark.parametrize("seed", range(6))
def test_streams(tmp_path, make, seed):
    generator = random.Random(seed)
    patterns = usable()
    chosen = [*patterns, *generator.choices(patterns, k=1000)]
    generator.shuffle(chosen)
    words = body(generator, chosen)
    code = b"".join(program(words))
    table, data = start(generator)
    wanted = expected(tmp_path / "stream", code, table, data)
    got = actual(make, code, table, data)
    assert len(got) == 256 + slices.AREA + RESULTS_SIZE == len(wanted)
    ours, theirs = (struct.unpack(f"<{RESULTS_SIZE // 8}Q", text[-RESULTS_SIZE:]) for text in (got, wanted))
    wrong = [place for place, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    assert not wrong, [(chosen[place].assembly, hex(ours[place]), hex(theirs[place])) for place in wrong[:5]]
    assert got == wanted


@pytest.mark.parametrize("make", slices.EXECUTORS)
@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("addl/v", 0x7FFFFFFF, 1), ("subl/v", 1 << 31, 1), ("addq/v", (1 << 63) - 1, 1),
        ("subq/v", 1 << 63, 1), ("mull/v", 1 << 16, 1 << 15), ("mulq/v", 1 << 32, 1 << 31),
    ],
)  # fmt: skip
def test_overflow_traps(make, name, a, b):
    memory = FlatMemory(1 << 32)
    memory.map(CODE, 4096, 7)
    memory.write(CODE, alpha.assemble(f"{name} $t0, $t1, $t2\n{name} $t3, $t1, $t2"))
    cpu = make("alpha", memory)
    registers = cpu.registers("r")
    registers[1], registers[2], registers[3], registers[4] = 3, b, 0, a
    cpu.pc = CODE
    stop = cpu.run()
    assert registers[3] != 0
    assert stop == Stop(StopReason.TRAP, CODE + 4, address=0x300)
