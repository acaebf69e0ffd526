"""Machines for x86 tests: random instructions of every form, executors in random states, and Unicorn."""

from types import SimpleNamespace

import unicorn
from unicorn import x86_const

from anyvirt.cpu.memory import FlatMemory
from anyvirt.isa.fields import CONTEXT
from anyvirt.isa.x86 import flags as flag_functions
from anyvirt.isa.x86 import i386, x86_64
from anyvirt.isa.x86.machine import FLAT, LONG, REAL, context
from anyvirt.typed import u64

CODE, DATA, READ_ONLY = 0x1000000, 0x20000, 0x24000
PAGE = 4096
DATA_SIZE = 4 * PAGE
FS_BASE, GS_BASE = DATA + 0x800, DATA + 0x1000
STREAM = (1 << CONTEXT) - 1
DESCRIPTIONS = {LONG: x86_64, FLAT: i386, REAL: i386}
NAMES = {LONG: "x86_64", FLAT: "i386"}
INTERESTING = [
    0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32,
    (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 0xFFFFFFFF80000000,
]  # fmt: skip
_GENERAL = ("AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI")
UNICORN = {
    LONG: [getattr(x86_const, f"UC_X86_REG_R{name}") for name in (*_GENERAL, *map(str, range(8, 16)))],
    FLAT: [getattr(x86_const, f"UC_X86_REG_E{name}") for name in _GENERAL],
}
FLAGS = flag_functions.STATUS | 1 << flag_functions.Flag.DIRECTION


def encode(generator, pattern, mode):
    """A random instruction of a pattern, as bytes with the prefixes it needs; None if it has none here."""
    shape = generator.choice(pattern.forms) if pattern.form else None
    whole = pattern if shape is None else pattern.with_form(shape)
    mask, match = whole.mask >> CONTEXT, whole.match >> CONTEXT
    if mode == LONG:
        for name in ("r", "x", "b"):
            field = context.fields[name]
            if not mask & field.mask and generator.random() < 0.4:
                mask |= field.mask
                match |= field.mask
    code = context.prefixes_for(mask, match, mode)
    if code is None:
        return None
    free = (1 << 8 * whole.length) - 1 & ~whole.mask
    word = whole.match & STREAM | generator.getrandbits(8 * whole.length) & free
    code += word.to_bytes(whole.length, "little")
    found = DESCRIPTIONS[mode].decode(code, mode)
    if found is None or found.length != len(code) or found.pattern.semantics is not pattern.semantics:
        return None
    return code


def _value(generator, mode):
    match generator.randrange(5):
        case 0:
            return generator.choice(INTERESTING)
        case 1:
            return generator.getrandbits(64)
        case 2:
            return generator.randrange(70)
    return DATA + generator.randrange(0x400, DATA_SIZE - 0x400)


class Start:
    """Registers, flags and memory to begin with, from a seed."""

    def __init__(self, generator, mode):
        self.mode = mode
        count = len(UNICORN[mode])
        mask = (1 << 64) - 1 if mode == LONG else 0xFFFFFFFF
        self.registers = [_value(generator, mode) & mask for _ in range(count)]
        self.registers[4] = DATA + generator.randrange(0x400, DATA_SIZE - 0x400)
        self.flags = generator.getrandbits(12) & FLAGS | 0x202
        self.data = generator.randbytes(DATA_SIZE)


class Machine:
    """One of our executors."""

    def __init__(self, make, mode):
        self.mode = mode
        self.memory = FlatMemory(1 << 32)
        self.memory.map(CODE, 2 * PAGE, 7)
        self.memory.map(DATA, DATA_SIZE, 3)
        self.memory.map(READ_ONLY, PAGE, 1)
        self.cpu = make(NAMES[mode], self.memory)

    def run(self, start, code, budget=1):
        """Why it stopped, and the state after `code`."""
        cpu = self.cpu
        self.memory.write(CODE, code)
        self.memory.write(DATA, start.data)
        cpu.invalidate(CODE, 2 * PAGE)
        registers = cpu.registers("r")
        for number, value in enumerate(start.registers):
            registers[number] = value
        if self.mode == LONG:
            cpu.registers("segment_base")[4] = FS_BASE
            cpu.registers("segment_base")[5] = GS_BASE
        set_flags(cpu, start.flags)
        cpu.pc = CODE
        stop = cpu.run(budget)
        return stop, self.state(len(start.registers))

    def state(self, count):
        """Everything that can be compared."""
        return {
            "pc": self.cpu.pc,
            "registers": list(self.cpu.registers("r")[:count]),
            "flags": get_flags(self.cpu),
            "data": self.memory.read(DATA, DATA_SIZE),
        }


_STATE = ("flag_left", "flag_right", "flag_result", "flag_form", "direction", "system_flags")


def get_flags(cpu):
    """EFLAGS of an executor."""
    state = SimpleNamespace(**{name: u64(cpu.state(name)) for name in _STATE})
    return int(flag_functions.flags(state))


def set_flags(cpu, value):
    """Set EFLAGS of an executor."""
    state = SimpleNamespace(system_flags=u64(0x200))
    flag_functions.set_user_flags(state, u64(value))
    for name in _STATE:
        cpu.set_state(name, int(getattr(state, name)))


class Oracle:
    """Unicorn with the same memory map."""

    def __init__(self, mode):
        self.mode = mode
        self.engine = unicorn.Uc(
            unicorn.UC_ARCH_X86, unicorn.UC_MODE_64 if mode == LONG else unicorn.UC_MODE_32
        )
        self.engine.mem_map(CODE, 2 * PAGE)
        self.engine.mem_map(DATA, DATA_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self.engine.mem_map(READ_ONLY, PAGE, unicorn.UC_PROT_READ)
        self.pc = x86_const.UC_X86_REG_RIP if mode == LONG else x86_const.UC_X86_REG_EIP
        if mode == LONG:
            self.engine.reg_write(x86_const.UC_X86_REG_FS_BASE, FS_BASE)
            self.engine.reg_write(x86_const.UC_X86_REG_GS_BASE, GS_BASE)
        self.engine.hook_add(unicorn.UC_HOOK_INTR, lambda engine, *_: engine.emu_stop())

    def run(self, start, code, budget=1):
        """The error if there was one (none for exceptions by number), and the state after `code`."""
        engine = self.engine
        engine.mem_write(CODE, code)
        engine.mem_write(DATA, start.data)
        engine.ctl_remove_cache(CODE, CODE + 2 * PAGE)
        for number, value in zip(UNICORN[self.mode], start.registers, strict=True):
            engine.reg_write(number, value)
        engine.reg_write(x86_const.UC_X86_REG_EFLAGS, start.flags)
        error = None
        try:
            engine.emu_start(CODE, CODE + len(code), 0, budget)
        except unicorn.UcError as raised:
            error = raised
        return error, {
            "pc": engine.reg_read(self.pc),
            "registers": [engine.reg_read(number) for number in UNICORN[self.mode]],
            "flags": engine.reg_read(x86_const.UC_X86_REG_EFLAGS),
            "data": bytes(engine.mem_read(DATA, DATA_SIZE)),
        }
