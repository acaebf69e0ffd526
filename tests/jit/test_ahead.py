"""Ahead-of-time compilation: blobs for processors with and without what the host happens to have."""

import llvmlite.binding as llvm
import pytest

from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit import blob
from anyvirt.jit.ahead import host_blob, instruction_set, interpreter_module
from anyvirt.jit.handlers import Features
from anyvirt.jit.interpreter import InterpreterTarget
from anyvirt.jit.llvm import compile_module


def test_instruction_sets_are_found_by_name():
    assert instruction_set("riscv64") is riscv64


def test_the_host_blob_has_what_the_run_time_looks_for():
    symbols = host_blob().symbols
    assert {"enter", "leave", "on_fault", "on_signal", "system_call", "forget", "data"} <= set(symbols)
    assert symbols["restart_begin"] < symbols["restart_end"] < symbols["restart_target"]


@pytest.mark.parametrize(("features", "fma"), [("", False), ("+avx2,+fma,+bmi2", True)])
def test_an_interpreter_needs_nothing_from_outside_on_any_processor(features, fma):
    compile_module("")  # initializes LLVM
    text = interpreter_module(riscv64, InterpreterTarget(riscv64, Features(counted=True, fma=fma)))
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu="x86-64", features=features, opt=1, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly(text)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=1))
    builder.getModulePassManager().run(module, builder)
    assert {"undecoded", "hooked"} <= set(blob.link(machine.emit_object(module)).symbols)
