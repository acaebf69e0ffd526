"""How operands are packed into records, the same for the decoder that writes and handlers that read them."""

from __future__ import annotations

import ast
import inspect
import types
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, get_type_hints

from anyvirt.isa.description import DescriptionError
from anyvirt.jit import ir
from anyvirt.jit.frames import is_value_type
from anyvirt.jit.frontend import FunctionCompiler
from anyvirt.jit.layout import OPERAND_FIELDS, RecordLayout
from anyvirt.jit.scope import function_tree, plain_function, static_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.isa.description import Handler, InstructionSet
    from anyvirt.jit.frontend import Module


@dataclass(frozen=True, slots=True)
class OperandSlot:
    """Where one operand is in a record and what type it has in the semantics."""

    offset: int
    llvm: str
    type: ir.ValueType


_LEAVING = frozenset(("jump", "branch", "illegal", "breakpoint", "synchronize_code"))
LENGTH_FIELD = OPERAND_FIELDS
"""Offset of the length of the instruction, a byte, where handlers do not know it."""


def operand_slots(isa: InstructionSet, module: Module, handler: Handler) -> dict[str, OperandSlot]:
    """A slot for each operand: bytes from the front for u8; 32 bits for others from the end, or 64 if needed.

    What belongs to a form comes first and in full width, so that it is at the same place in all records.
    """
    slots: dict[str, OperandSlot] = {}
    small: int = OPERAND_FIELDS + (handler.length == 0)
    end = RecordLayout.of(isa).size
    wide = isa.wide_operands(handler)
    room = small + _room_of_forms(isa) if handler.form else small
    for name, kind in _operand_types(module, handler):
        if small < room and not (handler.form and name.startswith(f"{handler.form}_")):
            small = room
        if ir.bit_width(kind) <= 8:
            slots[name] = OperandSlot(small, "i8", kind)
            small += 1
        else:
            full = name in wide or (handler.form != "" and name.startswith(f"{handler.form}_"))
            end -= 8 if full else 4
            slots[name] = OperandSlot(end, "i64" if full else "i32", kind)
        if small > end:
            raise DescriptionError(f"{handler.semantics.__qualname__}: a record has no room for {name}")
    return slots


def _room_of_forms(isa: InstructionSet) -> int:
    """Bytes that the small attributes of any class of a form need."""
    classes = {shape.structure for shapes in isa.forms.values() for shape in shapes}
    return max(sum(ir.bit_width(kind) <= 8 for _, kind in _members("", structure)) for structure in classes)


def _operand_types(module: Module, handler: Handler) -> Iterator[tuple[str, ir.ValueType]]:
    """Names and types of operands, those of a form first."""
    structures = dict(handler.structures)
    if handler.form:
        yield from _members(handler.form, structures[handler.form])
    constants = dict(handler.constants)
    for name, kind in FunctionCompiler(module, handler.semantics).signature.parameters[1:]:
        if name in constants or name == handler.form:
            continue
        if name in structures:
            yield from _members(name, structures[name])
        elif kind is None:
            raise DescriptionError(
                f"{handler.semantics.__qualname__}: operand {name} has no fixed-width type"
            )
        else:
            yield name, kind


def _members(role: str, structure: type) -> Iterator[tuple[str, ir.ValueType]]:
    """The attributes of an operand that is an object, under the names of operands."""
    for name, kind in get_type_hints(structure).items():
        if not is_value_type(kind):
            raise DescriptionError(f"{structure.__name__}.{name} has no fixed-width type")
        yield f"{role}_{name}", kind


def sunk_operands(isa: InstructionSet, semantics: Callable[..., None]) -> set[str]:
    """Operands that only select a register to be written, in a file whose register zero cannot be.

    The decoder turns number zero into the file's sink, so that handlers need not ask.
    """
    sunk: set[str] = set()
    used: set[str] = set()
    with_zero = {file.name for file in isa.register_files.values() if file.zero is not None}
    for (file, operand), written in _register_uses(semantics):
        (sunk if written and file in with_zero else used).add(operand)
    # A constant can name a register, too.
    return (sunk - used) & set(inspect.signature(semantics).parameters)


@cache
def _register_uses(semantics: Callable[..., None]) -> list[tuple[tuple[str | None, str], bool]]:
    """Each use of a name: the register file it selects from, if it does, and whether that is written."""
    tree = function_tree(plain_function(semantics))
    processor = next(iter(inspect.signature(semantics).parameters))
    return list(_uses_in(tree, processor))


def _uses_in(tree: ast.FunctionDef, processor: str) -> Iterator[tuple[tuple[str | None, str], bool]]:
    selectors: set[int] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(
                value=ast.Attribute(value=ast.Name(id=owner), attr=file), slice=ast.Name(id=operand) as index
            ) if owner == processor:
                selectors.add(id(index))
                yield (file, operand), isinstance(node.ctx, ast.Store)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and id(node) not in selectors:
            yield (None, node.id), False


@cache
def ends_straight_line(semantics: Callable[..., None]) -> bool:
    """Whether execution never goes on behind the instruction: decoding further would be in vain."""
    function = plain_function(semantics)
    return _ends(function, function_tree(function).body)


def _ends(function: types.FunctionType, statements: list[ast.stmt]) -> bool:
    """Whether statements of a function end with leaving the instruction."""
    match statements[-1]:
        case ast.If(body=then, orelse=otherwise):
            return bool(otherwise) and _ends(function, then) and _ends(function, otherwise)
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=method))):
            return method in _LEAVING
        case ast.Expr(value=ast.Call(func=ast.Name() as name)):
            try:
                called = static_object(function, name)
            except LookupError:
                return False
            return isinstance(called, types.FunctionType) and ends_straight_line(called)
    return False
