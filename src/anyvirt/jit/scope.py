"""Where a typed function comes from: its syntax tree, and what the names it does not assign stand for."""

from __future__ import annotations

import ast
import builtins
import functools
import linecache
import types
from typing import TYPE_CHECKING, Any, cast

from anyvirt.typed import TypedPythonError

if TYPE_CHECKING:
    from collections.abc import Callable


def function_tree(function: types.FunctionType) -> ast.FunctionDef:
    """The syntax tree of a function. Raises TypedPythonError where there is no source to read."""
    code = function.__code__
    tree = _functions_of(code.co_filename).get((code.co_firstlineno, code.co_name))
    if tree is None:
        raise TypedPythonError(f"{code.co_filename}:{code.co_firstlineno}: no `def` to compile here")
    return tree


@functools.cache
def _functions_of(filename: str) -> dict[tuple[int, str], ast.FunctionDef]:
    """All functions of a file by the line they start at (decorators included) and their name."""
    linecache.checkcache(filename)
    tree = ast.parse("".join(linecache.getlines(filename)))
    return {
        (min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]), node.name): node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


@functools.cache
def assigned_names(function: types.FunctionType) -> frozenset[str]:
    """The names that a function assigns to."""
    return frozenset(
        node.id
        for node in ast.walk(function_tree(function))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )


def plain_function(function: Callable[..., Any]) -> types.FunctionType:
    """The function a decorator wrapped, or itself. Raises TypedPythonError."""
    plain = getattr(function, "__wrapped__", function)
    if not isinstance(plain, types.FunctionType):
        raise TypedPythonError(f"{function!r} is no Python function and cannot be compiled")
    return plain


def static_object(function: types.FunctionType, node: ast.expr) -> object:
    """Evaluate a (dotted) name in the scope of a function. Raises LookupError."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return static_object(function, ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.Name):
        return lookup(function, node.id)
    if isinstance(node, ast.Attribute):
        owner = static_object(function, node.value)
        if hasattr(owner, node.attr):
            return cast("object", getattr(owner, node.attr))
    raise LookupError(ast.unparse(node))


def lookup(function: types.FunctionType, name: str) -> object:
    """What a name that is no local variable means in a function: closure, module, builtins."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    if name in cells:
        found: object = cells[name].cell_contents
        return found
    if name in function.__globals__:
        return cast("object", function.__globals__[name])
    if hasattr(builtins, name):
        return cast("object", getattr(builtins, name))
    raise LookupError(name)
