"""Traces: what they say, which instructions they are about, and that they change nothing."""

import io
import re

import pytest

from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.cpu.tracing import Trace

from .test_hooks import ADD, AMO, BRANCH, CALL, CODE, DATA, EXECUTORS, LOAD, STORE, finish, flat, prepared


@pytest.fixture(params=EXECUTORS)
def cpu(request):
    return prepared(EXECUTORS[request.param]())


def traced(cpu, **filters):
    file = io.StringIO()
    with Trace(cpu, file, **filters):
        finish(cpu)
    return file.getvalue().splitlines()


def test_lines_say_what_was_executed_and_what_it_changed(cpu):
    cpu.memory.write(DATA + 8, b"\x2a")
    lines = traced(cpu)
    assert lines[:4] == [
        f"{ADD:#x}: 13051500  addi a0, a0, 1  a0=0x0->0x1",
        f"{STORE:#x}: 23b0a500  sd a0, 0(a1)  [{DATA:#x}]8=0x1",
        f"{LOAD:#x}: 03a68500  lw a2, 8(a1)  a2=0x0->0x2a [{DATA + 8:#x}]4->0x2a",
        f"{BRANCH:#x}: e31ad5fe  bne a0, a3, {ADD:#x}",
    ]
    assert lines[-2:] == [
        f"{AMO:#x}: 2fb7a500  amoadd.d a4, a0, (a1)  a4=0x0->0x3 [{DATA:#x}]8->0x3",
        f"{CALL:#x}: 73000000  ecall",
    ]
    assert len(lines) == 14


def test_filters(cpu):
    lines = traced(cpu, start=STORE, end=BRANCH)
    assert [line.split(":")[0] for line in lines] == [hex(STORE), hex(LOAD)] * 3


def test_skipped_and_further_instructions_run_untraced(cpu):
    assert [line.split(":")[0] for line in traced(cpu, skip=5, limit=2)] == [hex(STORE), hex(LOAD)]


def test_budgets_are_kept(cpu):
    file = io.StringIO()
    trace = Trace(cpu, file, skip=3)
    assert cpu.run(2).pc == LOAD
    assert cpu.run(3).reason == StopReason.BUDGET
    assert cpu.pc == STORE
    assert trace.lines == 2
    assert cpu.run(0).reason == StopReason.BUDGET
    trace.close()
    trace.close()
    finish(cpu)
    assert trace.lines == 2


def test_breakpoints_stop_a_traced_run_and_nothing_is_told_twice(cpu):
    file = io.StringIO()
    with Trace(cpu, file), cpu.breakpoints.add(LOAD):
        for _ in range(3):
            assert cpu.run().pc == LOAD
        finish(cpu)
    assert len(file.getvalue().splitlines()) == 14


def test_what_cannot_be_executed_has_no_line():
    cpu = prepared(Interpreter("riscv64", flat()), "nop")
    file = io.StringIO()
    with Trace(cpu, file):
        assert cpu.run().reason == StopReason.ILLEGAL_INSTRUCTION
    assert file.getvalue() == f"{CODE:#x}: 13000000  addi zero, zero, 0\n"


def test_one_trace_at_a_time(cpu):
    with Trace(cpu, io.StringIO()), pytest.raises(ValueError, match="already"):
        Trace(cpu, io.StringIO())
    with Trace(cpu, io.StringIO()):
        finish(cpu)


def test_floating_point_registers_and_flags_are_told():
    text = "fcvt.d.l fa0, a3\nfdiv.d fa1, fa0, fa0\nfcvt.d.l fa2, zero\nfdiv.d fa1, fa0, fa2\necall"
    outcomes = []
    for make in (Interpreter, ReferenceExecutor):
        cpu = prepared(make("riscv64", flat()), text)
        file = io.StringIO()
        with Trace(cpu, file):
            cpu.run()
        outcomes.append(file.getvalue())
    assert outcomes[0] == outcomes[1]
    assert re.search(r"fdiv\.d .*fa1=0x3ff0000000000000->0x7ff0000000000000 fcsr=0x0->0x8", outcomes[0])
