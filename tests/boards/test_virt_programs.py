"""Programs without an operating system, on this board and on QEMU's."""

import shutil
import subprocess

import pytest

from anyvirt.boards.virt_map import RAM_START
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.devices.test_finisher import Finish, Outcome
from anyvirt.isa.riscv64 import riscv64

from .boards import Machine

PROGRAM = """
        lui s0, 0x10000             # the UART
        addi s1, zero, 97
print:  lbu t0, 5(s0)               # LSR: is there room?
        andi t0, t0, 0x20
        beq t0, zero, print
        sb s1, 0(s0)
        addi s1, s1, 1
        addi t0, zero, 123
        bne s1, t0, print

        lui s2, 0xc000              # the PLIC: let the UART interrupt hart 0
        addi t0, zero, 1
        sw t0, 40(s2)
        lui s3, 0xc002
        addi t0, zero, 0x400
        sw t0, 0(s3)
        addi t0, zero, 0x10         # loopback, and an interrupt for what comes back
        sb t0, 4(s0)
        addi t0, zero, 1
        sb t0, 1(s0)
        addi t0, zero, 33
        sb t0, 0(s0)
        lui s4, 0xc200
        lw s5, 4(s4)                # the claim
        lbu s6, 0(s0)               # the character
        sw s5, 4(s4)
        lw s7, 4(s4)                # nothing is left

        lui s8, 0x200c              # the CLINT: wait until the time goes on
        ld t0, -8(s8)
wait:   ld t1, -8(s8)
        beq t0, t1, wait

        slli s5, s5, 8              # the end: FAIL with a code from what was found
        add s5, s5, s6
        add s5, s5, s7
        slli s5, s5, 16
        lui t0, 0x3
        addi t0, t0, 0x333
        or s5, s5, t0
        lui t1, 0x100
        sw s5, 0(t1)
end:    jal zero, end
"""
ALPHABET = b"abcdefghijklmnopqrstuvwxyz"
CODE = 10 << 8 | ord("!")


def test_a_program_prints_is_interrupted_and_turns_the_machine_off():
    machine = Machine()
    machine.memory.write(RAM_START, riscv64.assemble(PROGRAM, pc=RAM_START))
    cpu = Interpreter("riscv64", machine.memory)
    cpu.pc = RAM_START
    while not machine.finishes:
        stop = cpu.run(max_instructions=1000)
        machine.clock.advance_to(machine.clock.now() + 1000)
        assert stop.reason is StopReason.BUDGET
    assert machine.finishes[0] == Finish(Outcome.FAIL, CODE)
    assert bytes(machine.printed) == ALPHABET


def test_the_program_does_the_same_on_qemu_s_board(tmp_path):
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("qemu-system-riscv64 is not installed (Debian: qemu-system-misc)")
    program = tmp_path / "program.bin"
    program.write_bytes(riscv64.assemble(PROGRAM, pc=RAM_START))
    words = ("-machine", "virt", "-bios", program, "-display", "none", "-serial", "stdio", "-monitor", "none")
    completed = subprocess.run(
        ["qemu-system-riscv64", *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert completed.stdout == ALPHABET
    assert completed.returncode == CODE & 0xFF
