"""How operands are packed into records, the same for the decoder that writes and handlers that read them."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.isa.description import DescriptionError
from anyvirt.jit import ir
from anyvirt.jit.frontend import FunctionCompiler
from anyvirt.jit.layout import OPERAND_FIELDS, RecordLayout
from anyvirt.jit.scope import function_tree, plain_function

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.isa.description import InstructionSet
    from anyvirt.jit.frontend import Module


@dataclass(frozen=True, slots=True)
class OperandSlot:
    """Where one operand is in a record and what type it has in the semantics."""

    offset: int
    llvm: str
    type: ir.ValueType


def operand_slots(
    isa: InstructionSet, module: Module, semantics: Callable[..., None]
) -> dict[str, OperandSlot]:
    """A slot for each parameter but the first: bytes from the front for u8, 32 bits from the end for others."""
    slots: dict[str, OperandSlot] = {}
    small: int = OPERAND_FIELDS
    wide = RecordLayout.of(isa).size
    for name, kind in FunctionCompiler(module, semantics).signature.parameters[1:]:
        if kind is None:
            raise DescriptionError(f"{semantics.__qualname__}: operand {name} has no fixed-width type")
        if ir.bit_width(kind) <= 8:
            slots[name] = OperandSlot(small, "i8", kind)
            small += 1
        else:
            wide -= 4
            slots[name] = OperandSlot(wide, "i32", kind)
        if small > wide:
            raise DescriptionError(f"{semantics.__qualname__}: a record has no room for operand {name}")
    return slots


def sunk_operands(isa: InstructionSet, semantics: Callable[..., None]) -> set[str]:
    """Operands that only select a register to be written, in a file whose register zero cannot be.

    The decoder turns number zero into the file's sink, so that handlers need not ask.
    """
    tree = function_tree(plain_function(semantics))
    processor = next(iter(inspect.signature(semantics).parameters))
    sunk: set[str] = set()
    used: set[str] = set()
    with_zero = {file.name for file in isa.register_files.values() if file.zero is not None}
    for (file, operand), written in _register_uses(tree, processor):
        (sunk if written and file in with_zero else used).add(operand)
    return sunk - used


def _register_uses(tree: ast.FunctionDef, processor: str) -> Iterator[tuple[tuple[str | None, str], bool]]:
    """Each use of a name: the register file it selects from, if it does, and whether that is written."""
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


def ends_straight_line(semantics: Callable[..., None]) -> bool:
    """Whether execution never goes on behind the instruction: decoding further would be in vain."""
    last = function_tree(plain_function(semantics)).body[-1]
    return (
        isinstance(last, ast.Expr)
        and isinstance(last.value, ast.Call)
        and isinstance(last.value.func, ast.Attribute)
        and last.value.func.attr in ("jump", "branch", "illegal", "breakpoint", "synchronize_code")
    )
