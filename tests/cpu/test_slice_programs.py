"""Compiled C programs for the instruction sets besides RISC-V, in every tier and in qemu-user."""

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.tiers import Tier, make_executor
from anyvirt.isa.sparc.core import WINDOW_OVERFLOW, WINDOW_UNDERFLOW, WINDOWS

SOURCE = Path(__file__).parent / "slice_programs" / "main.c"
START, SIZE, STACK_TOP = 0x20000, 0x40000, 0x5F000


@dataclass(frozen=True)
class Machine:
    """How programs are made for an instruction set, and how they call the system."""

    compiler: str
    options: tuple[str, ...]
    entry: str
    """Assembly that calls `run`, whatever registers are."""
    call: str
    """Assembly of a system call, for C."""
    number: int
    """The register with the number of the call; others follow as arguments."""
    arguments: tuple[int, ...]
    write: int
    exit: int
    stack: int
    qemu: str


def c_call(name, registers, instruction):
    """Functions `write_out` and `leave` by inline assembly."""
    number, first, second, third = registers
    return f"""
static void write_out(const char *text, long length) {{
  register long n __asm__("{number}") = {name[0]};
  register long a __asm__("{first}") = 1;
  register const char *b __asm__("{second}") = text;
  register long c __asm__("{third}") = length;
  __asm__ volatile("{instruction}" : "+r"(n), "+r"(a) : "r"(b), "r"(c) : "memory"{name[2]});
}}
static void leave(void) {{
  register long n __asm__("{number}") = {name[1]};
  register long a __asm__("{first}") = 0;
  __asm__ volatile("{instruction}" : : "r"(n), "r"(a) : "memory");
  for (;;) ;
}}
"""


MACHINES = {
    "mips": Machine(
        "mips-linux-gnu-gcc", ("-march=mips32r2", "-mno-abicalls", "-fno-pic", "-msoft-float", "-G0"),
        "j run\nnop", c_call((4004, 4001, ', "$7"'), ("$2", "$4", "$5", "$6"), "syscall"),
        2, (4, 5, 6), 4004, 4001, 29, "mips",
    ),
    "mipsel": Machine(
        "mipsel-linux-gnu-gcc", ("-march=mips32r2", "-mno-abicalls", "-fno-pic", "-msoft-float", "-G0"),
        "j run\nnop", c_call((4004, 4001, ', "$7"'), ("$2", "$4", "$5", "$6"), "syscall"),
        2, (4, 5, 6), 4004, 4001, 29, "mipsel",
    ),
    "ppc": Machine(
        "powerpc-linux-gnu-gcc", ("-mcpu=powerpc", "-msoft-float"),
        "b run", c_call((4, 1, ', "cr0"'), ("r0", "r3", "r4", "r5"), "sc"), 0, (3, 4, 5), 4, 1, 1, "ppc",
    ),
    "aarch64": Machine(
        "aarch64-linux-gnu-gcc", ("-mgeneral-regs-only", "-mno-outline-atomics"),
        "b run", c_call((64, 93, ""), ("x8", "x0", "x1", "x2"), "svc 0"), 8, (0, 1, 2), 64, 93, 32, "aarch64",
    ),
    "sparc": Machine(
        "sparc64-linux-gnu-gcc", ("-m32", "-mcpu=v8", "-msoft-float"),
        "ba run\nnop", c_call((4, 1, ', "cc"'), ("g1", "o0", "o1", "o2"), "ta 0x10"),
        1, (8, 9, 10), 4, 1, 14, "sparc",
    ),
    "alpha": Machine(
        "alpha-linux-gnu-gcc", ("-mcpu=ev67", "-msoft-float"),
        "br $27, 1f\n1: ldgp $29, 0($27)\nlda $27, run\njmp $31, ($27), run",
        c_call((4, 1, ', "$19"'), ("$0", "$16", "$17", "$18"), "callsys"),
        0, (16, 17, 18), 4, 1, 30, "alpha",
    ),
}  # fmt: skip


def build(machine, directory):
    """The program as an ELF file."""
    compiler = shutil.which(machine.compiler)
    if compiler is None:
        pytest.skip(f"needs {machine.compiler}")
    source, elf = directory / "program.c", directory / "program"
    entry = "\\n".join(machine.entry.splitlines())
    head = f'__asm__(".globl _start\\n_start:\\n{entry}\\n");\n'
    source.write_text("void run(void);\n" + head + machine.call + SOURCE.read_text())
    command = [compiler, "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie"]
    command += ["-no-pie", "-w", *machine.options, f"-Wl,-Ttext-segment={START:#x}"]
    command += ["-Wl,-z,max-page-size=65536", "-o", elf, source]
    completed = subprocess.run(command, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr
    return elf


def load(elf, memory):
    """Put the segments of an ELF file into memory; the address of its entry."""
    content = elf.read_bytes()
    wide, order = content[4] == 2, "<" if content[5] == 1 else ">"
    entry, headers = struct.unpack_from(order + ("QQ" if wide else "II"), content, 24)
    size, count = struct.unpack_from(order + "HH", content, 54 if wide else 42)
    for place in range(headers, headers + size * count, size):
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from(order + "IIQQQQ", content, place)
        else:
            kind, offset, address, _, length = struct.unpack_from(order + "IIIII", content, place)
        if kind == 1:
            memory.write(address, content[offset : offset + length])
    return entry


def serve_window(cpu, memory, trap):
    """What a kernel does when the ring of windows is full or empty: windows go to their stacks and back."""
    registers, windows = cpu.registers("r"), cpu.registers("w")
    cwp = cpu.state("cwp")
    if trap == WINDOW_OVERFLOW:
        window = (cwp - 2) % WINDOWS
        stack = windows[16 * ((window - 1) % WINDOWS) + 14]
        content = b"".join(windows[16 * window + number].to_bytes(4, "big") for number in range(16))
        memory.write(stack, content)
        cpu.set_state("wim", 1 << window)
    else:
        window = (cwp + 1) % WINDOWS
        content = memory.read(registers[30], 64)
        for number in range(16):
            windows[16 * window + number] = int.from_bytes(content[4 * number : 4 * number + 4], "big")
        cpu.set_state("wim", 1 << (window + 1) % WINDOWS)


def run(make, name, elf, budget):
    """The output of the program here."""
    machine = MACHINES[name]
    memory = FlatMemory(1 << 32)
    memory.map(START, SIZE, 7)
    entry = load(elf, memory)
    cpu = make(name, memory)
    file = "x" if name == "aarch64" else "r"
    registers = cpu.registers(file)
    registers[machine.stack] = STACK_TOP
    cpu.pc = entry
    output = b""
    while True:
        stop = cpu.run(budget)
        if stop.reason == StopReason.BUDGET:
            continue
        if stop.reason == StopReason.TRAP and stop.address in (WINDOW_OVERFLOW, WINDOW_UNDERFLOW):
            serve_window(cpu, memory, stop.address)
            continue
        assert stop.reason == StopReason.SYSTEM_CALL, (stop, output)
        if registers[machine.number] == machine.exit:
            return output
        assert registers[machine.number] == machine.write
        _, address, length = (registers[number] for number in machine.arguments)
        output += memory.read(address, length)
        cpu.pc = stop.next_pc


@pytest.fixture(scope="module", params=MACHINES)
def program(request, tmp_path_factory):
    name = request.param
    elf = build(MACHINES[name], tmp_path_factory.mktemp(name))
    qemu = shutil.which(f"qemu-{MACHINES[name].qemu}-static")
    if qemu is None:
        pytest.skip(f"needs qemu-{MACHINES[name].qemu}")
    expected = subprocess.run([qemu, elf], capture_output=True, timeout=60, check=True).stdout
    assert expected.count(b"\n") == 8
    return name, elf, expected


@pytest.mark.parametrize("tier", Tier)
def test_tiers(program, tier):
    name, elf, expected = program
    assert run(lambda *given: make_executor(*given, tier=tier), name, elf, None) == expected


def test_interpreter_in_small_pieces(program):
    """Budgets end between branches and their delay slots, too."""
    name, elf, expected = program
    if name not in ("mips", "sparc"):
        pytest.skip("has no delay slots, or those of mips")
    make = lambda *given: make_executor(*given, tier=Tier.INTERPRETER)  # noqa: E731
    assert run(make, name, elf, 997) == expected


@pytest.mark.slow
def test_reference(program):
    name, elf, expected = program
    assert run(ReferenceExecutor, name, elf, None) == expected
