"""What is compiled ahead of time: the blob of the host and an interpreter for each instruction set."""

from __future__ import annotations

import dataclasses
import importlib
import re
from typing import TYPE_CHECKING

from anyvirt.jit import blob as blobs
from anyvirt.jit.decoder import ILLEGAL, add_decoder
from anyvirt.jit.fetch import add_flat_fetch
from anyvirt.jit.frontend import Module
from anyvirt.jit.handlers import CONVENTION, PARAMETERS, Features
from anyvirt.jit.hooked_records import add_hooked_handler
from anyvirt.jit.host_x86_64 import CALL_OUTSIDE, FLOAT_ENVIRONMENT, host_module
from anyvirt.jit.interpreter import InterpreterTarget
from anyvirt.jit.layout import RecordLayout, Slot, StopReason
from anyvirt.jit.machine_fetch import add_machine_fetch
from anyvirt.jit.machine_model import bind_machine_words
from anyvirt.jit.region_machine import add_refill
from anyvirt.jit.stream_decoder import add_stream_decoder
from anyvirt.jit.stream_fetch import add_flat_stream_fetch
from anyvirt.jit.system_handlers import add_system, bind_system_words, routine_emitter

if TYPE_CHECKING:
    from anyvirt.isa.description import Handler, InstructionSet
    from anyvirt.jit.blob import Blob

_ODD = r"[^\w.]"
"""What mnemonics contain and names in LLVM cannot."""


def instruction_set(name: str) -> InstructionSet:
    """The description of an instruction set by name."""
    module = importlib.import_module(f"anyvirt.isa.{name}")
    description: InstructionSet = getattr(module, name)
    return description


def host_blob() -> Blob:
    """Compile what every run needs. Imports LLVM."""
    from anyvirt.jit.llvm import compile_module

    return blobs.link(compile_module(host_module()))


def interpreter_blob(
    isa: InstructionSet, *, counted: bool, memory: str = "flat", instrumented: bool = False
) -> Blob:
    """Compile the interpreter tier of an instruction set. Imports LLVM."""
    from anyvirt.jit.llvm import compile_module, host_has

    features = Features(counted=counted, fma=host_has("fma"), memory=memory, instrumented=instrumented)
    target = InterpreterTarget(isa, features)
    text = interpreter_module(isa, target)
    notes = {**dataclasses.asdict(target.layout), "records": dataclasses.astuple(RecordLayout.of(isa))}
    if isa.system is not None:
        notes["system"] = {
            "lines": isa.system.lines,
            "timer": isa.system.timer,
            "areas": isa.system.areas,
            "control": isa.system.control,
        }
    return blobs.link(compile_module(text), notes)


def interpreter_module(isa: InstructionSet, target: InterpreterTarget) -> str:
    """LLVM IR of all handlers and the decoder."""
    module = Module(target)
    module.define(FLOAT_ENVIRONMENT)
    machine = target.features.memory == "machine"
    if machine:
        module.define(CALL_OUTSIDE)
        translation = None
        if isa.system is not None:
            bind_system_words(module, isa, target.features)
            translation = routine_emitter(module, isa, target.features, isa.system.translate)
        bind_machine_words(module, translation)
    names = handler_forms(isa)
    for form, name in names.items():
        module.define(target.handler(module, form, name))
    module.define(_handler_table(list(names.values())))
    for length in {form.length for form in names}:
        module.define(_illegal(length, system=isa.system is not None))
    if isa.context is None:
        add_decoder(module, isa, names)
    else:
        add_stream_decoder(module, isa, names)
    if machine:
        add_machine_fetch(module, streams=isa.context is not None, system=isa.system is not None)
        add_refill(module)
        if isa.system is not None:
            add_system(module, isa, target.features)
    elif isa.context is not None:
        add_flat_stream_fetch(module)
    else:
        add_flat_fetch(module)
    add_hooked_handler(module)
    return module.text()


def handler_forms(isa: InstructionSet) -> dict[Handler, str]:
    """The forms of instructions that have a handler of their own, with its name, in a fixed order."""
    return {
        form: f"do.{re.sub(_ODD, '_', mnemonic)}.{number}"
        for number, (form, mnemonic) in enumerate(isa.handlers())
    }


def _handler_table(names: list[str]) -> str:
    """`handlers`: for each form in order, how far its handler is from the table, in 32 bits."""
    distances = ", ".join(
        f"i32 trunc (i64 sub (i64 ptrtoint (ptr @{name} to i64), i64 ptrtoint (ptr @handlers to i64)) to i32)"
        for name in names
    )
    return f"@handlers = dso_local constant [{len(names)} x i32] [{distances}]\n"


def _illegal(length: int, *, system: bool) -> str:
    """The handler of what is no instruction; it is not executed, so it does not count."""
    way = "@deliver" if system else "%leave"
    return f"""
define internal {CONVENTION} void @{ILLEGAL}.{length}({PARAMETERS}) nounwind {{
  %reason = getelementptr i8, ptr %state, i64 {int(Slot.REASON)}
  store i64 {int(StopReason.ILLEGAL_INSTRUCTION)}, ptr %reason
  %slot = getelementptr i8, ptr %state, i64 {int(Slot.LEAVE)}
  %leave = load ptr, ptr %slot
  musttail call {CONVENTION} void {way}(ptr %state, ptr %record, ptr %memory, i64 %count, ptr %records)
  ret void
}}
"""
