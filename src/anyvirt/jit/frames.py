"""Functions as they are compiled: signatures, local variables, and the loops one is in."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from anyvirt.jit import ir
from anyvirt.jit.scope import function_tree, static_object
from anyvirt.typed import FixedFloat, FixedInteger, TypedPythonError

if TYPE_CHECKING:
    import types
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """A parameter that is no number: `cpu`. Its attributes are the target's."""

    name: str


@dataclass(frozen=True, slots=True)
class Structure:
    """A parameter that is an object of a class known when compiling, whose attributes are numbers."""

    kind: type
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters in order (None marks an object parameter) and results of a typed function."""

    parameters: tuple[tuple[str, ir.ValueType | None], ...]
    results: tuple[ir.ValueType, ...]

    @property
    def llvm_result(self) -> str:
        """The LLVM return type."""
        if not self.results:
            return "void"
        if len(self.results) == 1:
            return ir.llvm_type(self.results[0])
        return "{ " + ", ".join(map(ir.llvm_type, self.results)) + " }"

    @property
    def takes_objects(self) -> bool:
        """Whether calls of the function have to be expanded in place."""
        return any(kind is None for _, kind in self.parameters)


@dataclass(slots=True)
class Variable:
    """A local variable: where it is and what it holds."""

    pointer: str
    type: ir.ValueType


@dataclass(slots=True)
class Loop:
    """Where `break` and `continue` of the innermost loop go, and what is assigned when they do."""

    end: str
    next: str
    at_end: list[set[str]] = field(default_factory=list)
    at_next: list[set[str]] = field(default_factory=list)


@dataclass(slots=True)
class Frame:
    """One Python function being compiled: the outermost, or one expanded in place."""

    function: types.FunctionType
    signature: Signature
    names: dict[str, Any] = field(default_factory=dict)
    """Variables, object references and loop constants by name."""
    assigned: set[str] = field(default_factory=set)
    loops: list[Loop] = field(default_factory=list)
    exit: str = ""
    """Label behind an expanded call; empty in the outermost function."""
    results: list[str] = field(default_factory=list)
    """Pointers that an expanded call leaves its results in."""
    returns: int = 0
    """Ways out of an expanded call so far."""
    only: tuple[list[ir.Value], ir.Place, ir.Place] | None = None
    """Results of the first one, and the places before and behind what it wrote."""


def signature_of(function: types.FunctionType) -> Signature:
    """What a function's annotations say. Raises TypedPythonError."""
    tree = function_tree(function)
    arguments = tree.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.defaults:
        raise TypedPythonError(
            f"{function.__code__.co_filename}:{tree.lineno}: only plain positional parameters compile"
        )
    parameters = tuple(
        (argument.arg, annotated_type(function, argument.annotation))
        for argument in [*arguments.posonlyargs, *arguments.args]
    )
    return Signature(parameters, tuple(_result_types(function, tree)))


def _result_types(function: types.FunctionType, tree: ast.FunctionDef) -> Iterator[ir.ValueType]:
    returns = tree.returns
    if returns is None or (isinstance(returns, ast.Constant) and returns.value is None):
        return
    elements: list[ast.expr] = [returns]
    if isinstance(returns, ast.Subscript) and isinstance(returns.slice, ast.Tuple):
        elements = returns.slice.elts
    for element in elements:
        kind = annotated_type(function, element)
        if kind is None:
            raise TypedPythonError(
                f"{function.__code__.co_filename}:{tree.lineno}: "
                f"{ast.unparse(returns)} is no type that compiled code can return"
            )
        yield kind


def annotated_type(function: types.FunctionType, annotation: ast.expr | None) -> ir.ValueType | None:
    """The fixed-width type an annotation names; None if it names something else."""
    if annotation is None:
        return None
    try:
        kind = static_object(function, annotation)
    except LookupError:
        return None
    return kind if is_value_type(kind) else None


def is_value_type(kind: object) -> TypeGuard[ir.ValueType]:
    """Whether this is one of the types of the language."""
    return isinstance(kind, type) and (
        kind is bool or (issubclass(kind, FixedInteger | FixedFloat) and hasattr(kind, "BITS"))
    )
