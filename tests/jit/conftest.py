"""Compiling typed functions in memory, so that tests can call them."""

import ctypes

import pytest

from anyvirt.jit.frontend import Module
from anyvirt.jit.target import Target
from anyvirt.typed import f32, f64

C_TYPES = {8: "int8", 16: "int16", 32: "int32", 64: "int64"}


def c_type(kind):
    if kind is bool:
        return ctypes.c_bool
    if kind in (f32, f64):
        return ctypes.c_float if kind is f32 else ctypes.c_double
    return getattr(ctypes, f"c_{'' if kind.SIGNED else 'u'}{C_TYPES[kind.BITS]}")


class Native:
    """Typed functions compiled by LLVM into this process."""

    def __init__(self):
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.llvm = llvm
        self.kept = []

    def compile(self, function, target=None):
        """A callable of plain numbers; results are as the C types give them."""
        from anyvirt.jit.frontend import FunctionCompiler

        module = Module(target or Target())
        module.add(function, name="entry", linkage="")
        signature = FunctionCompiler(module, function).signature
        parsed = self.llvm.parse_assembly(module.text())
        parsed.verify()
        machine = self.llvm.Target.from_default_triple().create_target_machine(opt=2)
        options = self.llvm.create_pipeline_tuning_options(speed_level=2)
        builder = self.llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(parsed, builder)
        engine = self.llvm.create_mcjit_compiler(parsed, machine)
        engine.finalize_object()
        self.kept.append(engine)
        result = c_type(signature.results[0]) if signature.results else None
        prototype = ctypes.CFUNCTYPE(result, *(c_type(kind) for _, kind in signature.parameters))
        return prototype(engine.get_function_address("entry"))


@pytest.fixture(scope="session")
def native():
    return Native()
