"""Register descriptions: complete, and accepted by gdb for each architecture that it knows."""

import contextlib
import shutil
import socket
import subprocess
import threading

import pytest

from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.debug.connection import Address, Listener
from anyvirt.debug.executor import ExecutorTarget
from anyvirt.debug.registers import describe, read_place, write_place
from anyvirt.debug.server import serve
from anyvirt.jit.ahead import instruction_set

CODE = 0x10000
STEPS = {
    "riscv64": ("addi a0, zero, 7\nadd a1, a0, a0", "a1", 14),
    "riscv32": ("addi a0, zero, 7\nadd a1, a0, a0", "a1", 14),
    "aarch64": ("movz x0, #7, lsl #0\nadd x1, x0, x0", "x1", 14),
    "mips": ("addiu $v0, $zero, 7\naddu $v1, $v0, $v0", "v1", 14),
    "mipsel": ("addiu $v0, $zero, 7\naddu $v1, $v0, $v0", "v1", 14),
    "ppc": ("addi r3, r5, 7\nadd r4, r3, r3", "r4", 14),
    "i386": ("mov eax, 0x7\nadd eax, eax", "eax", 14),
    "x86_64": ("mov rax, 0x7\nadd rax, rax", "rax", 14),
    "sparc": ("or %g0, 7, %g1\nadd %g1, %g1, %g2", "g2", 14),
}
TOGETHER = {"fcsr": ("fflags", "frm"), "fflags": ("fcsr",), "frm": ("fcsr",), "pc": ("npc",)}
"""Registers that change with others."""


def make(isa):
    memory = FlatMemory()
    memory.map(CODE, 0x1000, 7)
    cpu = ReferenceExecutor(isa, memory)
    cpu.pc = CODE
    return cpu


@pytest.mark.parametrize("isa", [*STEPS, "alpha"])
def test_every_register_can_be_read_and_written(isa):
    cpu = make(isa)
    description = describe(instruction_set(isa))
    assert len(description.numbers) == len(description.registers)
    assert description.registers[description.program_counter].type == "code_ptr"
    for register in description.registers:
        write_place(cpu, register.place, 0)
    for register in description.registers:
        before = {other.name: read_place(cpu, other.place) for other in description.registers}
        write_place(cpu, register.place, 1)
        after = {other.name: read_place(cpu, other.place) for other in description.registers}
        changed = {name for name in before if before[name] != after[name]}
        assert changed <= {register.name, *TOGETHER.get(register.name, ())}


@pytest.mark.parametrize("isa", STEPS)
def test_gdb_steps_and_shows_registers(isa):
    if shutil.which("gdb-multiarch") is None:
        pytest.skip("needs gdb-multiarch (package gdb-multiarch)")
    text, register, value = STEPS[isa]
    cpu = make(isa)
    cpu.memory.write(CODE, instruction_set(isa).assemble(text, CODE))
    listener = Listener(Address())
    target = ExecutorTarget([cpu])
    server = threading.Thread(target=lambda: serve(target, listener.accept()))
    server.start()
    try:
        script = [
            f"set endian {instruction_set(isa).byte_order}",
            f"target remote {listener.address}", "x/2i $pc", "stepi", "stepi", f"p/x ${register}", "p/x $pc",
            "p $sp == 0", "info registers", "detach",
        ]  # fmt: skip
        words = [word for line in script for word in ("-ex", line)]
        done = subprocess.run(
            ["gdb-multiarch", "-nx", "-q", "-batch", *words], capture_output=True, text=True, timeout=60
        )
    finally:
        # If gdb never came.
        with contextlib.suppress(OSError):
            socket.create_connection((listener.address.host, listener.address.port), 1).close()
        server.join(20)
    shown = done.stdout + done.stderr
    assert f"$1 = {value:#x}" in shown
    length = len(instruction_set(isa).assemble(text, CODE))
    assert f"$2 = {CODE + length:#x}" in shown
    assert "warning: Architecture rejected" not in shown
    assert "=> 0x10000" in shown
