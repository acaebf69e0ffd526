"""The one door to LLVM: IR text in, an object file for this host out. Imports llvmlite when first used."""

from __future__ import annotations

from functools import cache

import llvmlite.binding as llvm

# This pass of LLVM 22 turns `mov (mem), %ax` into `movzwl (mem), %eax` where the rest of %rax is still wanted
# (tests/jit/test_llvm.py has such a function).
llvm.set_option("anyvirt", "-fixup-byte-word-insts=false")

__all__ = ["compile_module", "host_has", "host_machine", "llvm"]


@cache
def host_machine(relocation: str, level: int = 2, features: str = "") -> llvm.TargetMachine:
    """What compiles for this host's processor at an optimization level.

    `relocation` is LLVM's relocation model, `features` changes those of the host, as ",-avx512f" does.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten() + features,
        opt=level,
        reloc=relocation,
        codemodel="small",
    )


def host_has(feature: str) -> bool:
    """Whether the host's processor has a feature, by LLVM's name for it."""
    return bool(llvm.get_host_cpu_features().get(feature, False))


def compile_module(text: str, *, relocation: str = "pic") -> bytes:
    """Optimize a module (level 2, no loop unrolling or vectorization) and compile it.

    `relocation` is LLVM's relocation model: "static" lets symbols be numbers of 32 bits.
    """
    machine = host_machine(relocation)
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_default_triple()
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    compiled: bytes = machine.emit_object(module)
    return compiled
