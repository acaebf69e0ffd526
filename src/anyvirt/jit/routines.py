"""Functions of a processor that are compiled once: what instructions and the system side call, not expand.

A routine is typed Python whose first parameter is the processor; compiled it gets the address of the state
block. It reads and writes state, but does not end an instruction: its results say what is to happen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyvirt.isa.patterns import Handler
from anyvirt.jit.frames import ObjectReference, signature_of
from anyvirt.jit.frontend import FunctionCompiler
from anyvirt.jit.handlers import HandlerCompiler
from anyvirt.jit.ir import Value
from anyvirt.jit.layout import RecordLayout, Slot
from anyvirt.jit.memory_model import memory_model
from anyvirt.jit.scope import plain_function
from anyvirt.typed import TypedPythonError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from anyvirt.isa.description import InstructionSet
    from anyvirt.jit.frontend import Module
    from anyvirt.jit.handlers import Features
    from anyvirt.jit.target import Argument


class RoutineCompiler(HandlerCompiler):
    """Compiles a function of the processor by itself."""

    def __init__(
        self, module: Module, isa: InstructionSet, features: Features, function: Callable[..., Any]
    ) -> None:
        FunctionCompiler.__init__(self, module, function)
        self.isa = isa
        self.in_slot = False
        self.form = Handler(function, 0)
        self.features = features
        self.model = memory_model(features.memory)
        self.length = 0
        self.records = RecordLayout.of(isa)
        self.address_bits = isa.address_bits
        self.sunk = set()
        self.has_changed = False
        if features.counted:
            self.body.effect(f"%count = load i64, ptr {self.slot(Slot.COUNT)}")

    def finish(self) -> None:
        """Return."""
        FunctionCompiler.finish(self)

    def leave(self, reason: int, record: str, count: str, records: str = "%records") -> None:
        """Not here."""
        raise TypedPythonError("a function that is compiled by itself cannot end an instruction")


def add_routine(
    module: Module,
    isa: InstructionSet,
    features: Features,
    function: Callable[..., Any],
    *,
    name: str | None = None,
) -> str:
    """The LLVM name of a routine; with a name of its own it can be called from outside."""

    def make(routine: Callable[..., Any]) -> FunctionCompiler:
        return RoutineCompiler(module, isa, features, routine)

    linkage = "internal " if name is None else "dso_local "
    return module.add(
        function, name=name, linkage=linkage, attributes='noinline nounwind "no-builtins"', make=make
    )


def call_routine(
    compiler: FunctionCompiler,
    symbol: str,
    function: Callable[..., Any],
    state: str,
    arguments: list[Argument],
) -> Argument:
    """Call a routine that has been added; `arguments` are those besides the processor."""
    signature = signature_of(plain_function(function))
    kinds = [kind for _, kind in signature.parameters if kind is not None]
    if len(arguments) != len(kinds):
        raise TypedPythonError(f"{function.__name__} wants {len(kinds)} argument(s) besides the processor")
    values = compiler.typed_arguments(arguments, kinds)
    passed = ", ".join([f"ptr {state}", *(value.operand for value in values)])
    call = f"call {signature.llvm_result} {symbol}({passed})"
    if not signature.results:
        compiler.body.effect(call)
        return None
    result = compiler.body.emit(call)
    if len(signature.results) == 1:
        return Value(result, signature.results[0])
    return tuple(
        compiler.body.value(f"extractvalue {signature.llvm_result} {result}, {position}", kind)
        for position, kind in enumerate(signature.results)
    )


def without_processor(arguments: list[Argument]) -> list[Argument]:
    """Arguments of a call besides the processor, which comes first."""
    if not arguments or not isinstance(arguments[0], ObjectReference):
        raise TypedPythonError("the first argument is the processor")
    return arguments[1:]
