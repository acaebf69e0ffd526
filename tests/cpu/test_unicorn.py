"""Random instruction streams in the interpreter tier and in Unicorn, an independent emulator."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.isa.riscv32 import riscv32
from anyvirt.isa.riscv64 import riscv64

from .machines import BOXED, CODE, DATA, MEMORIES, PAGE, Machine, Start

unicorn = pytest.importorskip("unicorn")
registers = pytest.importorskip("unicorn.riscv_const")

LENGTH = 40
EBREAK = (0x00100073).to_bytes(4, "little")
LOAD_RESERVED_W = (0x1001202F).to_bytes(4, "little")
LOAD_RESERVED_D = (0x1001302F).to_bytes(4, "little")
STACK_POINTER, FRAME_POINTER = 2, 8
MSTATUS_FLOATS_ON = 0x6000

# Not in streams: what leaves them, and what Unicorn 2.1 does otherwise than the manual says.
CONTROL = {"jal", "jalr", "c.j", "c.jal", "c.jr", "c.jalr", "ecall", "ebreak", "c.ebreak", "fence.i"}
CONTROL_REGISTERS = {"csrrw", "csrrs", "csrrc", "csrrwi", "csrrsi", "csrrci"}
UNKNOWN_TO_UNICORN = ("Zba", "RV64Zba", "Zbb", "RV64Zbb", "Zbs", "Zicond")
DIFFERENT = {
    "fmv.w.x": "does not box",
    "fmin.s": "minNum of IEEE 754-2008: a signaling NaN beats a number",
    "fmax.s": "as fmin.s",
    "fmin.d": "as fmin.s",
    "fmax.d": "as fmin.s",
}
BRANCHES = {"beq", "bne", "blt", "bge", "bltu", "bgeu"}


def is_single(pattern):
    base = pattern.mnemonic.removeprefix("c.")
    return base in ("flw", "fsw", "flwsp", "fswsp") or (base[0] == "f" and ".s" in base)


def is_double(pattern):
    base = pattern.mnemonic.removeprefix("c.")
    return base in ("fld", "fsd", "fldsp", "fsdsp") or (base[0] == "f" and ".d" in base)


def is_integer(pattern):
    return pattern.mnemonic.removeprefix("c.")[0] != "f"


def usable(isa):
    """What streams can be made of."""
    return [
        pattern
        for pattern in isa.patterns
        if pattern.mnemonic not in CONTROL | CONTROL_REGISTERS | set(DIFFERENT)
        and not pattern.mnemonic.startswith(("c.b", "fcvt.s.d", "fcvt.d.s"))
        and pattern.extension not in UNKNOWN_TO_UNICORN
    ]


STREAMS = {"integer": is_integer, "single": is_single, "double": is_double}
MODES = {riscv64: unicorn.UC_MODE_RISCV64, riscv32: unicorn.UC_MODE_RISCV32}


class Oracle:
    """Unicorn with the same memory map."""

    def __init__(self, isa):
        self.engine = unicorn.Uc(unicorn.UC_ARCH_RISCV, MODES[isa])
        self.mask = (1 << isa.register_files["x"].width) - 1
        self.engine.mem_map(CODE, 2 * PAGE)
        self.engine.mem_map(DATA, 2 * PAGE)
        self.engine.reg_write(registers.UC_RISCV_REG_MSTATUS, MSTATUS_FLOATS_ON)
        self.x = [registers.UC_RISCV_REG_X0 + number for number in range(32)]
        self.f = [registers.UC_RISCV_REG_F0 + number for number in range(32)]

    def run(self, start, code):
        engine = self.engine
        engine.mem_write(CODE, code)
        engine.mem_write(DATA, start.data)
        engine.ctl_remove_cache(CODE, CODE + 2 * PAGE)
        for number in range(32):
            engine.reg_write(self.x[number], start.x[number] & self.mask)
            engine.reg_write(self.f[number], start.f[number])
        engine.reg_write(registers.UC_RISCV_REG_FCSR, start.fcsr)
        engine.emu_start(CODE, CODE + len(code) - len(EBREAK))
        return {
            "pc": engine.reg_read(registers.UC_RISCV_REG_PC),
            "x": [engine.reg_read(number) for number in self.x],
            "f": [engine.reg_read(number) for number in self.f],
            "fcsr": engine.reg_read(registers.UC_RISCV_REG_FCSR),
            "data": bytes(engine.mem_read(DATA, 2 * PAGE)),
        }


def fits_a_stream(pattern, word):
    """Whether an instruction neither leaves the stream nor touches memory outside of the data."""
    values = pattern.decode(word)
    for name, operand in pattern.by_name.items():
        if name == "rd" and operand.field.registers == "x" and values[name] in (STACK_POINTER, FRAME_POINTER):
            return False
    if values.get("rm") == 7:
        return True
    if "(" in pattern.assembly:
        return values["rs1"] in (STACK_POINTER, FRAME_POINTER)
    return True


def encode(isa, generator, pattern):
    """A random instruction of this form that fits, or None."""
    for _ in range(200):
        word = pattern.match | generator.getrandbits(8 * pattern.length) & ~pattern.mask
        if "(" in pattern.assembly and pattern.length == 4:
            word = word & ~(31 << 15) | generator.choice((STACK_POINTER, FRAME_POINTER)) << 15
        if isa.find(word, pattern.length) is pattern and fits_a_stream(pattern, word):
            return word
    return None


def stream(isa, generator, patterns):
    """The code of random instructions; branches skip one instruction or none."""
    # A reservation that is the same in both; one of another width than the store's is not (either may fail).
    width = generator.choice("wd") if isa is riscv64 else "w"
    code = {"w": LOAD_RESERVED_W, "d": LOAD_RESERVED_D}[width]
    other = [f"{name}.{'d' if width == 'w' else 'w'}" for name in ("lr", "sc")]
    patterns = [pattern for pattern in patterns if pattern.mnemonic not in other]
    while len(code) < 4 * LENGTH:
        pattern = generator.choice(patterns)
        if pattern.mnemonic in BRANCHES:
            # An offset of 8 over a nop: imm[4:1] is in bits 11:8.
            registers_used = generator.getrandbits(10) << 15
            word = pattern.match | registers_used | generator.choice((4, 8)) >> 1 << 8
            code += word.to_bytes(4, "little") + (0x00150513).to_bytes(4, "little")
            continue
        word = encode(isa, generator, pattern)
        if word is not None:
            code += word.to_bytes(pattern.length, "little")
    return code + EBREAK


@pytest.fixture(scope="module", params=MODES, ids=lambda isa: isa.name)
def isa(request):
    return request.param


@pytest.fixture(scope="module", params=MEMORIES)
def machine(isa, request):
    return Machine(Interpreter, isa.name, request.param)


@pytest.fixture(scope="module")
def oracle(isa):
    return Oracle(isa)


@pytest.mark.parametrize("kind", STREAMS)
def test_streams(isa, machine, oracle, kind):
    patterns = [pattern for pattern in usable(isa) if STREAMS[kind](pattern)]

    @settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([None, 1 << 30]))
    def check(seed, budget):
        generator = random.Random(seed)
        start = Start(seed)
        start.x[STACK_POINTER] = start.x[FRAME_POINTER] = DATA + PAGE
        start.fcsr = generator.randrange(5) << 5
        start.reserved = False
        if kind == "single":
            start.f = [value & 0xFFFFFFFF | BOXED for value in start.f]
        code = stream(isa, generator, patterns)
        expected = oracle.run(start, code)
        machine.prepare(start, code)
        stop = machine.cpu.run(budget)
        actual = machine.outcome(stop)
        actual["f"] = list(machine.cpu.f)
        if kind == "single":
            # Unicorn leaves the upper halves of most results 0.
            for outcome in (expected, actual):
                outcome["f"] = [value & 0xFFFFFFFF for value in outcome["f"]]
        assert stop.reason == StopReason.BREAKPOINT
        for name, value in expected.items():
            assert actual[name] == value, f"{name}\n{listing(isa, code)}"

    check()


def listing(isa, code):
    """The stream as assembly text."""
    lines, position = [], 0
    while position < len(code):
        length = 4 if code[position] & 3 == 3 else 2
        word = int.from_bytes(code[position : position + length], "little")
        lines.append(f"{CODE + position:#x}: {isa.disassemble(word, length, CODE + position)}")
        position += length
    return "\n".join(lines)
