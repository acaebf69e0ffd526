"""Machines of privileged RISC-V for tests: RAM, page tables, and executors in identical states."""

import array
import functools
import random

from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.isa.riscv64_system import riscv64_system

ISA = "riscv64_system"
RAM, SIZE, PAGE = 0x8000_0000, 1 << 20, 4096
CODE, HANDLER, DATA, TABLES = RAM, RAM + 0x4000, RAM + 0x8000, RAM + 0x10000
TABLES_SIZE = 0x10000
VALID, READ, WRITE, EXECUTE, USER, GLOBAL, ACCESSED, DIRTY = (1 << bit for bit in range(8))
ALL = VALID | READ | WRITE | EXECUTE | ACCESSED | DIRTY
USER_MODE, SUPERVISOR, MACHINE = 0, 1, 3
OPEN_PMP = {"pmpaddr0": (1 << 54) - 1, "pmpcfg0": 0x1F}
CONTROL = [name for name in riscv64_system.register_files["csr"].names if not name.startswith("mhpm")]


class PageTables:
    """Page tables at TABLES, which are filled as pages are mapped."""

    def __init__(self, memory, levels=3, root=TABLES):
        self.memory = memory
        self.levels = levels
        self.root = root
        self._next = root + PAGE

    @property
    def satp(self):
        """The value of satp that uses them in address space 0."""
        return 5 + self.levels << 60 | self.root >> 12

    def place(self, address, level=0):
        """Physical address of the entry for an address; tables on the way are made."""
        table = self.root
        for depth in range(self.levels - 1, level, -1):
            entry = table + (address >> 12 + 9 * depth & 511) * 8
            value = int.from_bytes(self.memory.read(entry, 8), "little")
            if not value & VALID:
                value = self._next >> 2 | VALID
                self._next += PAGE
                self.memory.write(entry, value.to_bytes(8, "little"))
            table = (value >> 10 << 12) & (1 << 56) - 1
        return table + (address >> 12 + 9 * level & 511) * 8

    def map(self, address, physical, flags, level=0):
        """Let the page of an address be a physical one."""
        self.memory.write(self.place(address, level), (physical >> 2 | flags).to_bytes(8, "little"))

    def entry(self, address, level=0):
        """The entry for an address."""
        return int.from_bytes(self.memory.read(self.place(address, level), 8), "little")


class SystemMachine:
    """An executor in M-mode with a megabyte of RAM."""

    def __init__(self, make):
        self.memory = MachineMemory()
        self.memory.add_ram(RAM, SIZE)
        self.cpu = make(ISA, self.memory)
        self.cpu.system.set_time(0, instructions=0)
        self.cpu.pc = CODE

    def write(self, address, text, **symbols):
        """Assemble into memory."""
        self.memory.write(address, riscv64_system.assemble(text, address, symbols))

    def control(self, name):
        """A control register that is a plain value, or another piece of the hart's state."""
        return self.cpu.registers("csr")[riscv64_system.register_files["csr"].names.index(name)]

    def set_control(self, **values):
        """Set control registers by their names, those of functions by that of their value."""
        names = riscv64_system.register_files["csr"].names
        for name, value in values.items():
            place = name if name in names else f"{name}_value" if f"{name}_value" in names else "mip_software"
            self.cpu.registers("csr")[names.index(place)] = value
        self.cpu.system.refresh()

    def enter(self, mode, pc=CODE, **control):
        """Be in a mode at an address."""
        self.set_control(**OPEN_PMP | control)
        self.cpu.set_state("privilege", mode)
        self.cpu.pc = pc

    def outcome(self, stop):
        """All that can be seen of the state."""
        return {
            "stop": stop,
            "pc": hex(self.cpu.pc),
            "instructions": self.cpu.instructions,
            "privilege": self.cpu.state("privilege"),
            "x": [hex(value) for value in self.cpu.x],
            "f": [hex(value) for value in self.cpu.f],
            "fcsr": self.cpu.fcsr,
            "csr": {name: hex(self.control(name)) for name in CONTROL},
            "lines": self.cpu.system.lines,
            "memory": self._memory(),
        }

    def _memory(self):
        """All of it; whether a page table says that a page was accessed may depend on looking ahead."""
        tables = self.memory.read(TABLES, TABLES_SIZE)
        words = array.array("Q", tables)
        masked = array.array("Q", [word & ~ACCESSED for word in words]).tobytes()
        rest = TABLES + TABLES_SIZE
        return self.memory.read(RAM, TABLES - RAM) + masked + self.memory.read(rest, RAM + SIZE - rest)


# Random programs --------------------------------------------------------------------------------------------

_NUMBERS = [
    "mstatus", "misa", "medeleg", "mideleg", "mie", "mtvec", "mcounteren", "menvcfg", "mscratch",
    "mepc", "mcause", "mtval", "mhartid", "stvec", "scounteren", "senvcfg", "sscratch", "sepc",
    "scause", "stval", "sstatus", "sie", "sip", "mip", "satp", "stimecmp", "pmpcfg0", "pmpaddr0",
    "pmpaddr1", "mcycle", "minstret", "cycle", "time", "instret", "fflags", "frm", "fcsr",
    "mhpmcounter3", "hpmcounter3", "0x5c0", "tselect", "tinfo",
]  # fmt: skip
_HARMLESS = [
    "mscratch",
    "sscratch",
    "mtval",
    "stval",
    "mcause",
    "scause",
    "sstatus",
    "mstatus",
    "sie",
    "mie",
    "mip",
    "sip",
    "fcsr",
    "time",
    "instret",
]
VIRTUAL = 0x4000_0000
_ANYWHERE, _POOL = 0x1000, 600
_WORDS = (
    0,
    1,
    2,
    0x1800,
    0x800,
    0x100,
    0x80,
    0x22,
    0xAA,
    0x222,
    0xAAA,
    0xB3FF,
    1 << 17,
    1 << 18,
    1 << 19,
    0x6000,
)


@functools.cache
def _pool():
    """Machine code of instructions of all kinds; relative to wherever they are."""
    generator = random.Random(0)
    return [riscv64_system.assemble(_line(generator), _ANYWHERE) for _ in range(_POOL)]


def random_program(seed):
    """A page of code: what machines do, in any order."""
    return b"".join(random.Random(seed).choices(_pool(), k=PAGE // 4))


def _register(generator):
    return f"x{generator.choice((0, 5, 6, 7, 10, 11, 12, 13))}"


def _line(generator):
    rd, rs1, rs2 = (_register(generator) for _ in range(3))
    base = generator.choice(("x8", "x9", "x18", "x19", "x20"))
    offset = generator.choice((0, 8, 4, 1, 2044, -8, 2047))
    csr = generator.choice(_NUMBERS if generator.random() < 0.4 else _HARMLESS)
    return generator.choice(
        (
            f"csrrw {rd}, {csr}, {rs1}",
            f"csrrs {rd}, {csr}, {rs1}",
            f"csrrc {rd}, {csr}, {rs1}",
            f"csrrsi {rd}, {csr}, {generator.randrange(32)}",
            f"csrrci {rd}, {csr}, {generator.randrange(32)}",
            f"csrrs {rd}, {csr}, x0",
            f"ld {rd}, {offset}({base})",
            f"lw {rd}, {offset}({base})",
            f"sd {rs1}, {offset}({base})",
            f"sb {rs1}, {offset}({base})",
            f"amoadd.w {rd}, {rs1}, ({base})",
            f"lr.d {rd}, ({base})",
            f"sc.d {rd}, {rs1}, ({base})",
            f"addi {rd}, {rs1}, {generator.randrange(-2048, 2048)}",
            f"add {rd}, {rs1}, {rs2}",
            f"slli {rd}, {rs1}, {generator.randrange(64)}",
            f"lui {rd}, {generator.choice((0, 1, 2, 6, 0x80000, 0x40000))}",
            f"beq {rs1}, {rs2}, {_ANYWHERE + generator.choice((8, 12, 16))}",
            f"jal {rd}, {_ANYWHERE + generator.choice((8, 12, 20, -16))}",
            "ecall",
            "ebreak",
            "mret",
            "sret",
            f"sfence.vma {rs1}, {rs2}",
            "fence.i",
            "fadd.d f1, f2, f3",
            f"fld f4, {offset}({base})",
            f"fsd f4, 0({base})",
            f"cbo.zero ({base})",
            "wfi",
        )
    ).replace("wfi", "wfi" if generator.random() < 0.3 else "fence.i")


def prepare(machine, seed):
    """Random page tables, registers and control registers; code everywhere."""
    generator = random.Random(seed)
    for page in range(4):
        machine.memory.write(CODE + page * PAGE, random_program(seed * 8 + page))
    machine.memory.write(HANDLER, random_program(seed * 8 + 4))
    machine.memory.write(DATA, generator.randbytes(4 * PAGE))
    tables = PageTables(machine.memory, generator.choice((3, 3, 4, 5)))
    for page in range(16):
        flags = VALID | generator.choice((READ, READ | WRITE, EXECUTE, READ | WRITE | EXECUTE, WRITE, 0))
        flags |= sum(generator.choice((0, bit)) for bit in (USER, ACCESSED, DIRTY))
        if page < 8 and generator.random() < 0.8:
            flags |= READ | WRITE | EXECUTE
        tables.map(VIRTUAL + page * PAGE, RAM + page * PAGE, flags)
    tables.map(RAM, RAM, ALL | generator.choice((0, USER)), level=1)
    cpu = machine.cpu
    cpu.x[:] = [0] + [generator.choice((generator.getrandbits(64), *_WORDS)) for _ in range(31)]
    for number in (8, 9, 18, 19, 20):
        cpu.x[number] = generator.choice((DATA, VIRTUAL, RAM)) + generator.randrange(16 * PAGE) // 8 * 8
    if generator.random() < 0.5:
        cpu.x[20] = generator.choice((0, DATA + PAGE - 4, VIRTUAL + 9 * PAGE - 3, 1 << 40, RAM + SIZE - 4))
    cpu.fcsr = 0
    mode = generator.choice((USER_MODE, SUPERVISOR, MACHINE))
    translated = generator.random() < 0.7
    code = generator.choice((VIRTUAL, RAM)) if translated and mode != MACHINE else RAM
    machine.enter(
        mode,
        code,
        satp=tables.satp if translated else 0,
        mtvec=HANDLER | generator.choice((0, 1)),
        stvec=generator.choice((VIRTUAL if translated else RAM, RAM)) + 0x4000 + generator.choice((0, 1)),
        mepc=generator.choice((VIRTUAL, RAM)) + 0x100,
        sepc=generator.choice((VIRTUAL, RAM)) + 0x200,
        medeleg=generator.choice((0, 0xB3FF, 0xB109)),
        mideleg=generator.choice((0, 0x222)),
        mie=generator.choice((0, 0xAAA)),
        mcounteren=generator.choice((0, 7)),
        scounteren=generator.choice((0, 7)),
        menvcfg=generator.choice((3 << 61, 0, 1 << 63 | 0xF1, (1 << 64) - 1 & ~0x20)),
        senvcfg=generator.choice((0, 0xD0)),
        stimecmp=generator.choice(((1 << 64) - 1, 1, 2)),
        mstatus=0xA00000000
        | sum(generator.choice((0, bit)) for bit in (2, 8, 32, 128, 256, 0x1800, 0x6000, 0x2000))
        | sum(generator.choice((0, 0, 0, 1 << bit)) for bit in (17, 18, 19, 20, 21, 22)),
    )
    for line in (1, 3, 7, 9, 11):
        if generator.random() < 0.15:
            machine.cpu.set_interrupt(line, True)


# Random programs with more of what is compiled together -----------------------------------------------------


@functools.cache
def _ordinary_pool():
    """Instructions that mostly stay out of trouble, of 2 and 4 bytes; relative to wherever they are."""
    generator = random.Random(1)
    return [riscv64_system.assemble(_ordinary_line(generator), _ANYWHERE) for _ in range(_POOL)]


def _ordinary_line(generator):
    if generator.random() < 0.02:
        return _line(generator)
    rd, rs1, rs2 = (_register(generator) for _ in range(3))
    base, code = generator.choice(("x8", "x9", "x18", "x19")), generator.choice(("x21", "x22", "x23"))
    offset = generator.choice((0, 8, 4, 1, 96, -8, -16))
    near = _ANYWHERE + generator.choice((-64, -32, -8, 8, 16, 32, 128, PAGE, -PAGE))
    return generator.choice(
        (
            f"ld {rd}, {offset}({base})",
            f"lbu {rd}, {offset}({base})",
            f"sd {rs1}, {offset}({base})",
            f"sw {rs1}, {offset}({base})",
            f"add {rd}, {rs1}, {rs2}",
            f"xor {rd}, {rs1}, {rs2}",
            f"mul {rd}, {rs1}, {rs2}",
            f"addi {rd}, {rs1}, {generator.randrange(-2048, 2048)}",
            f"auipc {rd}, {generator.choice((0, 1, 0x80000))}",
            f"addi {base}, {base}, {generator.choice((8, -8, 64, 0, 1, 2040))}",
            f"beq {rs1}, {rs2}, {_ANYWHERE + generator.choice((-128, -16, -4, 8, 12, 100))}",
            f"bltu {rs1}, {rs2}, {_ANYWHERE + generator.choice((-128, -16, -4, 8, 12, 100))}",
            f"bne {rs1}, x0, {_ANYWHERE + generator.choice((-128, -16, -4, 8, 12, 100))}",
            f"jal x{generator.choice((0, 1))}, {near}",
            f"jalr x{generator.choice((0, 1))}, {generator.choice((0, 4, 32))}({code})",
            "jalr x0, 0(x1)",
            "c.nop",
            "c.addi x10, 1",
            "c.mv x11, x10",
            "c.add x12, x11",
            "fadd.d f1, f2, f3",
            "fmul.s f2, f1, f1",
            "fcvt.d.l f3, x10",
            "fmv.x.d x12, f1",
            f"fld f4, {offset}({base})",
            f"fsd f4, {offset}({base})",
            f"amoadd.w {rd}, {rs1}, ({base})",
        )
    )


def ordinary_program(seed, pages):
    """Code of mostly ordinary instructions, which may lie across the ends of pages."""
    generator, code = random.Random(seed), b""
    while len(code) < pages * PAGE:
        code += generator.choice(_ordinary_pool())
    return code[: pages * PAGE]


def prepare_ordinary(machine, seed):
    """As `prepare`, with such code, at two series of addresses that have the pages in a different order."""
    prepare(machine, seed)
    generator = random.Random(seed)
    machine.memory.write(CODE, ordinary_program(seed, 4))
    tables = PageTables(machine.memory, (machine.control("satp_value") >> 60 or 8) - 5)
    tables._next += 64 * PAGE // 4
    order = generator.sample(range(4), 4)
    sound = VALID | READ | EXECUTE | ACCESSED | (USER if machine.cpu.state("privilege") == USER_MODE else 0)
    for page in range(4):
        for address, physical in ((page, page), (page + 16, order[page])):
            flags = sound if generator.random() < 0.9 else 0
            tables.map(VIRTUAL + address * PAGE, CODE + physical * PAGE, flags)
    for page in range(8, 16):
        flags = (sound & ~EXECUTE) | WRITE | DIRTY
        tables.map(VIRTUAL + page * PAGE, RAM + page * PAGE, flags if generator.random() < 0.7 else 0)
    cpu = machine.cpu
    for number in (8, 9, 18, 19):
        cpu.x[number] = VIRTUAL + 8 * PAGE + generator.randrange(4 * PAGE) // 8 * 8
    if generator.random() < 0.3:
        cpu.x[19] = VIRTUAL + generator.randrange(4 * PAGE)
    for number in (1, 21, 22, 23):
        start = generator.choice((VIRTUAL, VIRTUAL + 16 * PAGE, VIRTUAL, CODE))
        cpu.x[number] = start + generator.randrange(4 * PAGE) // 4 * 4
    if machine.control("satp_value") and cpu.state("privilege") != MACHINE:
        cpu.pc = generator.choice((VIRTUAL, VIRTUAL + 16 * PAGE)) + generator.randrange(2 * PAGE) // 4 * 4
    machine.set_control(mstatus=machine.control("mstatus") | generator.choice((0x6000, 0x6000, 0x2000, 0)))
