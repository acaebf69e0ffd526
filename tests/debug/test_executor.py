"""Bare executors under a debugger: one CPU and several, in either memory model."""

import struct

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.memory import FlatMemory
from anyvirt.debug.executor import ExecutorTarget
from anyvirt.debug.target import Ended
from anyvirt.isa.riscv64 import riscv64

from .remote import Served

CODE, DATA = 0x10000, 0x20000
LOOP = "loop: addi a0, a0, 1\nsd a0, 0(a1)\nbne a0, a2, loop\necall\nj loop"


def flat():
    memory = FlatMemory()
    memory.map(CODE, 0x1000, 7)
    memory.map(DATA, 0x1000, 3)
    return memory


def machine():
    memory = MachineMemory()
    memory.add_ram(CODE, 0x1000)
    memory.add_ram(DATA, 0x1000)
    return memory


@pytest.fixture(params=[flat, machine])
def cpus(request):
    memory = request.param()
    memory.write(CODE, riscv64.assemble(LOOP, CODE))
    made = [Interpreter("riscv64", memory) for _ in range(2)]
    for number, cpu in enumerate(made):
        cpu.pc, cpu.x[11], cpu.x[12] = CODE, DATA + 8 * number, 5
    return made


def register(client, number):
    return int.from_bytes(bytes.fromhex(client.ask(b"p%x" % number).decode()), "little")


def leave(cpu, stop):
    assert stop.reason == StopReason.SYSTEM_CALL
    return Ended(status=cpu.x[10])


def test_one_cpu(cpus):
    target = ExecutorTarget(cpus[:1], leave)
    with Served(target) as client:
        assert register(client, 32) == CODE
        assert client.ask(b"Z0,%x,4" % (CODE + 4)) == b"OK"
        assert client.ask(b"c").startswith(b"T05thread:1;")
        assert (register(client, 32), register(client, 10)) == (CODE + 4, 1)
        assert client.ask(b"m%x,4" % CODE) == riscv64.assemble(LOOP, CODE)[:4].hex().encode()
        assert client.ask(b"z0,%x,4" % (CODE + 4)) == b"OK"
        assert client.ask(b"Z2,%x,8" % DATA) == b"OK"
        assert b"watch:%x;" % DATA in client.ask(b"vCont;c")
        assert register(client, 32) == CODE + 8
        assert client.ask(b"z2,%x,8" % DATA) == b"OK"
        assert client.ask(b"vCont;s").startswith(b"T05")
        assert register(client, 32) == CODE
        assert client.ask(b"vCont;r%x,%x" % (CODE, CODE + 8)).startswith(b"T05")
        assert register(client, 32) == CODE + 8
        # New code takes effect.
        assert (
            client.ask(b"M%x,4:%s" % (CODE, riscv64.assemble("addi a0, a0, 3", CODE).hex().encode())) == b"OK"
        )
        assert client.ask(b"c") == b"W05"


def test_faults_are_signals(cpus):
    cpus[0].x[11] = 0x900000
    with Served(ExecutorTarget(cpus[:1])) as client:
        assert client.ask(b"c").startswith(b"T0b")
        assert register(client, 32) == CODE + 4
        assert client.ask(b"P0b=" + struct.pack("<Q", DATA).hex().encode()) == b"OK"
        # A system call that nobody serves.
        assert client.ask(b"c").startswith(b"T0c")
        assert register(client, 32) == CODE + 12


def test_several_cpus_stop_together_and_step_alone(cpus):
    cpus[0].x[12] = cpus[1].x[12] = (1 << 64) - 1
    target = ExecutorTarget(cpus)
    with Served(target) as client:
        assert client.ask(b"qfThreadInfo") == b"m1,2"
        client.send(b"vCont;c")
        while not (cpus[0].x[10] > 1000 and cpus[1].x[10] > 1000):
            pass
        client.peer.sendall(b"\x03")
        assert client.reply().startswith(b"T02")
        before = list(cpus[1].x)
        assert client.ask(b"vCont;s:1").startswith(b"T05thread:1;")
        assert list(cpus[1].x) == before
        assert client.ask(b"Hg2") == b"OK"
        assert register(client, 11) == DATA + 8
        # One breakpoint for both; whoever comes second is told of when it is to go on.
        assert client.ask(b"Z0,%x,4" % (CODE + 8)) == b"OK"
        threads = {client.ask(b"vCont;c")[:13] for _ in range(20)}
        assert threads == {b"T05thread:1;2", b"T05thread:2;2"}
        assert client.ask(b"D") == b"OK"
    assert not list(cpus[0].hooks)
