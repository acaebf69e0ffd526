"""Privileged RISC-V against qemu-system-riscv64: programs that write down what happens to them."""

import shutil
import subprocess

import pytest
from tests.cpu.system_machines import (
    ACCESSED,
    ALL,
    DIRTY,
    EXECUTE,
    ISA,
    PAGE,
    READ,
    USER,
    VALID,
    WRITE,
    PageTables,
)

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.isa.riscv64_system import riscv64_system

QEMU = shutil.which("qemu-system-riscv64")
pytestmark = pytest.mark.skipif(QEMU is None, reason="no qemu-system-riscv64 here")

RAM, SIZE = 0x8000_0000, 1 << 20
START, HANDLER, TABLES, PAGES, NOTES = RAM, RAM + 0x8000, RAM + 0x10000, RAM + 0x40000, RAM + 0x80000
UART, FINISHER, PASSED = 0x1000_0000, 0x10_0000, 0x5555
VIRTUAL = 0x4000_0000
_ONLY_QEMU = 0xF_0000_0600
DONE = "ecall"
"""Back to M-mode, to the next case."""

# Registers: s0 where to note the next word, s1 where to go on after a trap. The handler notes what it sees.
_HANDLER = """
csrrs t0, mcause, zero
sd t0, 0(s0)
csrrs t0, mepc, zero
sd t0, 8(s0)
csrrs t0, mtval, zero
sd t0, 16(s0)
csrrs t0, mstatus, zero
sd t0, 24(s0)
sd a0, 32(s0)
csrrs t0, satp, zero
sd t0, 40(s0)
addi s0, s0, 48
csrrw zero, mepc, s1
lui t0, 2
addi t0, t0, -0x800
csrrs zero, mstatus, t0
lui t0, 0x20
csrrc zero, mstatus, t0
mret
"""
_PRINT = """
li t1, {notes}
li t2, {uart}
print: beq t1, s0, finish
lbu t3, 0(t1)
sb t3, 0(t2)
addi t1, t1, 1
jal zero, print
finish: li t1, {finisher}
li t2, {passed}
sw t2, 0(t1)
stay: jal zero, stay
"""


class _Serial:
    def __init__(self):
        self.output = b""

    def read(self, offset, size):
        return 0x60 if offset == 5 else 0

    def write(self, offset, size, value):
        self.output += bytes([value & 0xFF]) if offset == 0 else b""


class _Finisher:
    def __init__(self):
        self.cpu = None

    def read(self, offset, size):
        return 0

    def write(self, offset, size, value):
        self.cpu.interrupt()


def program(cases):
    """One case after the other; after each the handler notes what has happened."""
    lines = [f"li s0, {NOTES}", f"li t0, {HANDLER}", "csrrw zero, mtvec, t0"]
    lines += ["addi a2, zero, 0", "li t0, -1", "csrrw zero, pmpaddr0, t0", "csrrwi zero, pmpcfg0, 0x1f"]
    for number, case in enumerate(cases):
        lines += [f"jal s1, case{number}", f"jal zero, next{number}", f"case{number}: addi a0, zero, 0"]
        lines += [*case, f"next{number}: addi zero, zero, 0"]
    lines += _PRINT.format(notes=NOTES, uart=UART, finisher=FINISHER, passed=PASSED).splitlines()
    return riscv64_system.assemble("\n".join(lines), START)


def on_qemu(tmp_path, image):
    """What QEMU's machine prints."""
    (tmp_path / "image").write_bytes(image)
    output = tmp_path / "output"
    command = [
        QEMU, "-M", "virt", "-m", "128", "-cpu", "rv64,h=false", "-display", "none", "-bios", "none",
        "-device", f"loader,file={tmp_path / 'image'},addr={RAM:#x},force-raw=on",
        "-serial", f"file:{output}", "-monitor", "none",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=60)
    return output.read_bytes()


def memory_with(cases, mapped):
    """A machine's memory with the program and page tables for it."""
    memory = MachineMemory()
    memory.add_ram(RAM, SIZE)
    tables = PageTables(memory, root=TABLES)
    for address, physical, flags in mapped:
        tables.map(address, physical, flags)
    # The program itself, for S-mode.
    tables.map(RAM, RAM, ALL, level=1)
    memory.write(START, program(cases))
    memory.write(HANDLER, riscv64_system.assemble(_HANDLER, HANDLER))
    return memory


def on_ours(memory):
    serial, finisher = _Serial(), _Finisher()
    memory.add_mmio(UART, 8, serial)
    memory.add_mmio(FINISHER, 0x1000, finisher)
    cpu = finisher.cpu = Interpreter(ISA, memory)
    cpu.pc = START
    assert cpu.run().reason == StopReason.INTERRUPTED
    return serial.output


def compare(tmp_path, cases, mapped=()):
    memory = memory_with(cases, mapped)
    expected = on_qemu(tmp_path, memory.read(RAM, SIZE))
    found = on_ours(memory)
    records = [[_words(text[at : at + 48]) for at in range(0, len(text), 48)] for text in (found, expected)]
    assert len(records[0]) == len(records[1]) == len(cases)
    for case, *pair in zip(cases, *records, strict=True):
        ours, theirs = ([hex(word) for word in _comparable(words, case)] for words in pair)
        assert ours == theirs, case


def _words(text):
    return [int.from_bytes(text[at : at + 8], "little") for at in range(0, len(text), 8)]


def _comparable(words, case):
    """Without what this QEMU sees otherwise: UXL, SXL and VS can be written, EBREAK has no value."""
    cause, pc, value, status, result, satp = words
    if any(f"a0, {name}status" in line for line in case for name in "ms"):
        result &= ~_ONLY_QEMU
    return cause, pc, 0 if cause == 3 else value, status & ~_ONLY_QEMU, result, satp


def enter(mode, *lines, status=0, satp=0):
    """Go into a mode, where `lines` are executed."""
    return [
        f"li t0, {satp}", "csrrw zero, satp, t0", "sfence.vma zero, zero",
        f"li t0, {0x1800 | 0xF << 17 | 3 << 21}", "csrrc zero, mstatus, t0",
        f"li t0, {mode << 11 | status}", "csrrs zero, mstatus, t0",
        "auipc t0, 0", "addi t0, t0, 16", "csrrw zero, mepc, t0", "mret", *lines, DONE,
    ]  # fmt: skip


def test_exceptions(tmp_path):
    compare(
        tmp_path,
        [
            enter(3), enter(1), enter(0), ["ebreak"], [".word 0xffffffff"], [".half 0"],
            ["csrrw a0, 0x5c0, a1"],
            ["li a1, 0x80080001", "lr.w a0, (a1)"],
            *(enter(mode, text) for mode in (0, 1) for text in (
                "mret", "sret", "csrrs a0, mstatus, zero", "csrrs a0, sstatus, zero", "sfence.vma zero, zero",
                "csrrs a0, time, zero", "csrrs a0, mhartid, zero", "csrrw zero, satp, zero", "ebreak")),
            enter(1, "csrrs a0, satp, zero", status=1 << 20),
            enter(1, "sfence.vma zero, zero", status=1 << 20),
            enter(1, "wfi", status=1 << 21), enter(1, "sret", status=1 << 22), enter(0, "wfi"),
            ["fadd.d f0, f0, f0"], ["csrrs a0, fcsr, zero"],
        ],
    )  # fmt: skip


_DEFINED = {
    "mstatus": 0x8000_0000_007E_79AA, "mtvec": -1, "mepc": -2, "mcause": -1, "mtval": -1, "mscratch": -1,
    "medeleg": 0xB3FF, "mideleg": 0x222, "mie": 0xAAA, "sstatus": 0x8000_0000_000C_6122, "stvec": -1,
    "sepc": -2, "scause": -1, "sie": 0xAAA, "satp": -1,
}  # fmt: skip
"""Registers, and the bits that are compared: QEMU has those of the hypervisor extension even without it, and
leaves the lowest bit of an address of return to the jump."""


_VALUES = (-1, 0x5555555555555555, 0, 2, 0x8000000000012345, 0x9000000000012345, 0x7000000000000001)


def write_and_read(name, value):
    """Write to a register, and read back what is compared of it."""
    return f"""
csrrs t4, mstatus, zero
li t0, {value}
csrrw zero, {name}, t0
csrrs a0, {name}, zero
li t0, {_DEFINED[name]}
and a0, a0, t0
li t5, {HANDLER}
csrrw zero, mtvec, t5
csrrw zero, medeleg, zero
csrrw zero, mie, zero
li t0, -1
csrrc zero, mstatus, t0
csrrs zero, mstatus, t4
csrrw zero, satp, zero
csrrw zero, scause, zero
{DONE}""".split("\n")[1:]


def is_left_out(name, value):
    """QEMU keeps modes that do not exist."""
    return (name in ("satp", "mtvec") and value == -1) or (name == "mstatus" and value & 0x1800 == 0x1000)


def test_what_can_be_written_to_registers(tmp_path):
    pairs = [(name, value) for name in _DEFINED for value in _VALUES if not is_left_out(name, value)]
    compare(tmp_path, [write_and_read(name, value) for name, value in pairs])


def test_rights_of_pages(tmp_path):
    mapped, cases = [], []
    satp = 8 << 60 | TABLES >> 12
    bits = [VALID, READ, WRITE, EXECUTE, USER]
    for number in range(32):
        flags = sum(bit for position, bit in enumerate(bits) if number >> position & 1) | ACCESSED | DIRTY
        address = VIRTUAL + number * PAGE
        mapped.append((address, PAGES + number * PAGE, flags))
        for status in (0, 1 << 18, 1 << 19, 1 << 18 | 1 << 19):
            for text in ("ld a0, 8(a1)", "sd a2, 8(a1)"):
                cases.append(enter(1, f"li a1, {address}", text, status=status, satp=satp))
        # As U-mode, from M-mode.
        for text in ("ld a0, 8(a1)", "sd a2, 8(a1)"):
            cases.append(
                [f"li a1, {address}", f"li t0, {satp}", "csrrw zero, satp, t0", "sfence.vma zero, zero",
                 "li t0, 0xe1800", "csrrc zero, mstatus, t0", "li t0, 0x20000", "csrrs zero, mstatus, t0",
                 text, "csrrc zero, mstatus, t0", DONE]
            )  # fmt: skip
    compare(tmp_path, cases, mapped)
