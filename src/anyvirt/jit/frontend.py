"""From typed Python to LLVM IR text: one function's syntax tree becomes one LLVM function.

Nothing here imports llvmlite; the text can be kept, hashed, or handed to any LLVM. Locals become allocas
(LLVM's mem2reg turns them into SSA values). What an intrinsic or an object parameter means is the
`Target`'s business (see `anyvirt.jit.target`).
"""

from __future__ import annotations

import ast
import builtins
import types
from typing import TYPE_CHECKING, Any

from anyvirt import typed
from anyvirt.jit import ir
from anyvirt.jit.arithmetic import COMPARABLE, Arithmetic, construct, type_name
from anyvirt.jit.frames import (
    Frame,
    Loop,
    ObjectReference,
    Signature,
    Structure,
    Variable,
    annotated_type,
    is_value_type,
    signature_of,
)
from anyvirt.jit.ir import Value
from anyvirt.jit.scope import assigned_names, function_tree, plain_function, static_object
from anyvirt.typed import FixedFloat, FixedInteger, TypedPythonError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.jit.target import Argument, Intrinsic, Target

UNROLL_LIMIT = 128
"""Most iterations of a loop over plain ints, which is unrolled."""


class Module:
    """LLVM functions compiled for one target, each once, with the functions they call."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._names: dict[object, str] = {}
        self._definitions: list[str] = []
        self._constants: dict[tuple[object, ...], str] = {}

    def add(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        linkage: str = "internal ",
        attributes: str = "",
        make: Callable[[Callable[..., Any]], FunctionCompiler] | None = None,
    ) -> str:
        """Compile a typed function (once) and return its LLVM name, `@` included.

        `linkage` "" makes it visible to a linker under `name`. `make` gives a compiler that knows what the
        parameters that are objects mean; the function then gets a pointer called `%state` for each. Raises
        TypedPythonError.
        """
        known = self._names.get(function)
        if known is not None:
            return known
        symbol = f'@"{name or f"{function.__module__}.{function.__qualname__}.{len(self._names)}"}"'
        self._names[function] = symbol
        compiler = FunctionCompiler(self, plain_function(function)) if make is None else make(function)
        signature, parameters = compiler.signature, []
        for parameter, kind in signature.parameters:
            if kind is None and make is not None:
                parameters.append("ptr %state")
                continue
            if kind is None:
                raise compiler.refusal(
                    f"parameter {parameter} has no number type: annotate it with u8 ... f64"
                )
            parameters.append(f"{ir.llvm_type(kind)} %{parameter}")
        text = compiler.compile()
        head = f"define {linkage}{signature.llvm_result} {symbol}({', '.join(parameters)}) {attributes}"
        self._definitions.append(f"{head} {{\n{text}\n}}\n")
        return symbol

    def define(self, text: str) -> None:
        """Append a definition or declaration written in LLVM IR."""
        self._definitions.append(text)

    def table(self, values: tuple[FixedInteger | FixedFloat, ...]) -> str:
        """A constant array; returns its LLVM name."""
        key = (type(values[0]), *map(str, values))
        if key not in self._constants:
            name = f"@table.{len(self._constants)}"
            elements = ", ".join(ir.constant(value).operand for value in values)
            kind = ir.llvm_type(type(values[0]))
            self._definitions.append(
                f"{name} = private unnamed_addr constant [{len(values)} x {kind}] [{elements}]\n"
            )
            self._constants[key] = name
        return self._constants[key]

    def text(self) -> str:
        """The module so far, as LLVM assembly."""
        return "\n".join(self._definitions) + ir.METADATA


class FunctionCompiler(Arithmetic):
    """The compilation of one function; what targets' emitters work with."""

    def __init__(self, module: Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        self.target = module.target
        self.function = plain_function(function)
        self._node: ast.AST = function_tree(self.function)
        self._frames = [Frame(self.function, signature_of(self.function))]

    @property
    def signature(self) -> Signature:
        """Of the function being compiled."""
        return self._frames[0].signature

    @property
    def _frame(self) -> Frame:
        return self._frames[-1]

    def compile(self) -> str:
        """The blocks of the function whose LLVM parameters are named as the Python ones."""
        return self.compile_with(
            {name: Value(f"%{name}", kind) for name, kind in self.signature.parameters if kind is not None}
        )

    def compile_with(self, arguments: dict[str, Argument]) -> str:
        """The blocks of the function with parameters bound to the given values; others are objects."""
        try:
            self._bind(arguments)
            self._function_body(self.function)
            return self.body.text()
        except TypedPythonError as error:
            if getattr(error, "located", False):
                raise
            raise self.refusal(str(error)) from None

    def refusal(self, reason: str) -> TypedPythonError:
        """The error for what is being compiled right now, with its place."""
        code = self._frame.function.__code__
        line = getattr(self._node, "lineno", code.co_firstlineno)
        error = TypedPythonError(f"{code.co_filename}:{line}: {reason}")
        error.located = True  # type: ignore[attr-defined]
        return error

    # Names ----------------------------------------------------------------------------------------------

    def _bind(self, arguments: dict[str, Argument]) -> None:
        """Give each parameter of the innermost frame its value.

        A plain `Value` becomes a variable; numbers known when compiling and a target's own kinds of values
        stay what they are, so that they can be told apart when they come back to the target.
        """
        for name, kind in self._frame.signature.parameters:
            given = arguments.get(name)
            if name not in arguments:
                self._frame.names[name] = ObjectReference(name)
            elif type(given) is Value:
                self._bind_value(name, given if kind is None else self.typed(given, kind))
            elif isinstance(given, int | float) and kind is not None and not self._stays_known(name, given):
                self._bind_value(name, ir.literal(given, kind))
            else:
                self._frame.names[name] = given

    def _stays_known(self, name: str, given: float) -> bool:
        """A condition known when compiling remains so, if the function does not assign to it."""
        return isinstance(given, bool) and name not in assigned_names(self._frame.function)

    def _bind_value(self, name: str, value: Value) -> None:
        """A parameter is a variable only if the function assigns to it."""
        if name in assigned_names(self._frame.function):
            self._assign_name(name, value)
        else:
            self._frame.names[name] = value

    def _assign_name(self, name: str, value: Argument) -> None:
        if name == "_":
            return
        known = self._frame.names.get(name)
        if isinstance(value, int | float) and isinstance(known, Variable):
            value = ir.literal(value, known.type)
        if not isinstance(value, Value):
            raise TypedPythonError(
                f"{name} needs a fixed-width type: write {name} = u64({value!r}) or another type"
                if isinstance(value, int | float)
                else f"{type_name(value)} cannot be kept in a variable"
            )
        if known is None:
            known = Variable(self.body.local(ir.llvm_type(value.type), name), value.type)
            self._frame.names[name] = known
        if not isinstance(known, Variable):
            raise TypedPythonError(f"{name} cannot be assigned to")
        if known.type is not value.type:
            raise TypedPythonError(
                f"{name} is {known.type.__name__} and cannot become {value.type.__name__}: use another name"
            )
        self.body.effect(f"store {value.operand}, ptr {known.pointer}")
        self._frame.assigned.add(name)

    def _read_name(self, name: str) -> Argument:
        known = self._frame.names.get(name)
        if known is None:
            if name in self._frame.function.__code__.co_varnames:
                raise TypedPythonError(f"{name} is used before it is assigned")
            return _compile_time(self._static(ast.Name(name)), name)
        if isinstance(known, Variable):
            if name not in self._frame.assigned:
                raise TypedPythonError(f"{name} is not assigned on every way to here")
            return self.body.value(f"load {ir.llvm_type(known.type)}, ptr {known.pointer}", known.type)
        return known

    # Statements -----------------------------------------------------------------------------------------

    def _function_body(self, function: types.FunctionType) -> None:
        tree = function_tree(function)
        self._statements(tree.body)
        if not self.body.closed:
            self._node = tree
            self._return(None)

    def _statements(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.body.closed:
                return
            self._node = statement
            handler = _STATEMENTS.get(type(statement))
            if handler is None:
                raise TypedPythonError(f"{construct(statement)} cannot be compiled")
            handler(self, statement)

    def _assign(self, statement: ast.Assign) -> None:
        if len(statement.targets) != 1:
            raise TypedPythonError("one assignment at a time: a = b = c cannot be compiled")
        self._store(statement.targets[0], self.evaluate(statement.value))

    def _annotated_assign(self, statement: ast.AnnAssign) -> None:
        kind = annotated_type(self._frame.function, statement.annotation)
        if statement.value is None or kind is None:
            raise TypedPythonError("a variable needs a value of a fixed-width type from the start")
        value = self.evaluate(statement.value)
        if isinstance(value, int | float):
            raise TypedPythonError(
                f"an annotation does not convert in CPython: write {kind.__name__}({value!r})"
            )
        self._store(statement.target, self.typed(value, kind))

    def _augmented_assign(self, statement: ast.AugAssign) -> None:
        target = statement.target
        current = self.evaluate(_as_load(target))
        self._store(target, self.operate(statement.op, current, self.evaluate(statement.value)))

    def _store(self, target: ast.expr, value: Argument) -> None:
        match target:
            case ast.Name(id=name):
                self._assign_name(name, value)
            case ast.Tuple(elts=elements):
                if not isinstance(value, tuple) or len(value) != len(elements):
                    raise TypedPythonError(f"{len(elements)} values are wanted here")
                for element, part in zip(elements, value, strict=True):
                    self._store(element, part)
            case ast.Attribute(value=ast.Name() as owner, attr=name) if self._is_object(owner):
                self.target.write_attribute(self, name, value)
            case ast.Subscript(value=ast.Attribute(value=ast.Name() as owner, attr=name)) if self._is_object(
                owner
            ):
                self.target.write_element(self, name, self.evaluate(target.slice), value)
            case _:
                raise TypedPythonError(f"{ast.unparse(target)} cannot be assigned to")

    def _is_object(self, name: ast.Name) -> bool:
        return isinstance(self._frame.names.get(name.id), ObjectReference)

    def _expression(self, statement: ast.Expr) -> None:
        if not isinstance(statement.value, ast.Constant):
            self.evaluate(statement.value)

    def _return_statement(self, statement: ast.Return) -> None:
        self._return(None if statement.value is None else self.evaluate(statement.value))

    def _return(self, value: Argument) -> None:
        frame = self._frame
        results = frame.signature.results
        given = () if value is None else value if isinstance(value, tuple) else (value,)
        if len(given) != len(results):
            raise TypedPythonError(
                f"{frame.function.__name__} must return {len(results)} value(s) everywhere, here {len(given)}"
            )
        values = [self.typed(part, kind) for part, kind in zip(given, results, strict=True)]
        if frame.exit:
            self._leave_expansion(frame, values)
        elif not values:
            self.finish()
        elif len(values) == 1:
            self.body.close(f"ret {values[0].operand}")
        else:
            aggregate = "poison"
            for position, part in enumerate(values):
                aggregate = self.body.emit(
                    f"insertvalue {frame.signature.llvm_result} {aggregate}, {part.operand}, {position}"
                )
            self.body.close(f"ret {frame.signature.llvm_result} {aggregate}")

    def _leave_expansion(self, frame: Frame, values: list[Value]) -> None:
        before = self.body.place()
        if not frame.returns:
            frame.results = [self.body.local(ir.llvm_type(part.type), "result") for part in values]
        for part, pointer in zip(values, frame.results, strict=True):
            self.body.effect(f"store {part.operand}, ptr {pointer}")
        self.body.branch(frame.exit)
        frame.only = (values, before, self.body.place()) if not frame.returns else None
        frame.returns += 1

    def finish(self) -> None:
        """End a function without results; instruction handlers go on to the next instruction instead."""
        self.body.close("ret void")

    def _if(self, statement: ast.If) -> None:
        condition = self._condition(statement.test)
        if isinstance(condition, bool):
            self._statements(statement.body if condition else statement.orelse)
            return
        then, otherwise, end = (self.body.fresh(hint) for hint in ("then", "else", "end"))
        self.body.branch_if(condition, then, otherwise)
        before, ends = set(self._frame.assigned), []
        for label, branch in ((then, statement.body), (otherwise, statement.orelse)):
            self.body.open(label)
            self._frame.assigned = set(before)
            self._statements(branch)
            if not self.body.closed:
                ends.append(self._frame.assigned)
                self.body.branch(end)
        self._join(end, ends)

    def _join(self, label: str, ends: list[set[str]]) -> None:
        """Go on where several ways meet; with none, what follows cannot be reached."""
        if ends:
            self.body.open(label)
            self._frame.assigned = set.intersection(*ends)

    def _while(self, statement: ast.While) -> None:
        if statement.orelse:
            raise TypedPythonError("while ... else cannot be compiled")
        head, inside, end = (self.body.fresh(hint) for hint in ("while", "do", "done"))
        loop = Loop(end, head)
        self.body.branch(head)
        self.body.open(head)
        condition = self._condition(statement.test)
        if isinstance(condition, bool):
            self.body.branch(inside if condition else end)
        else:
            self.body.branch_if(condition, inside, end)
        if condition is not True:
            loop.at_end.append(set(self._frame.assigned))
        self.body.open(inside)
        self._loop_body(loop, statement.body)
        if not self.body.closed:
            self.body.branch(head)
        self._join(end, loop.at_end)

    def _loop_body(self, loop: Loop, statements: list[ast.stmt]) -> None:
        self._frame.loops.append(loop)
        self._statements(statements)
        self._frame.loops.pop()

    def _for(self, statement: ast.For) -> None:
        call, target = statement.iter, statement.target
        if statement.orelse or not isinstance(target, ast.Name):
            raise TypedPythonError("only `for NAME in range(...)` can be compiled")
        iterable = self._static(call.func) if isinstance(call, ast.Call) else None
        if not isinstance(call, ast.Call) or iterable not in (typed.range, builtins.range) or call.keywords:
            raise TypedPythonError("only `for NAME in range(...)` can be compiled")
        bounds = [self.evaluate(argument) for argument in call.args]
        if not 1 <= len(bounds) <= 3:
            raise TypedPythonError("range takes one to three arguments")
        start, stop = (0, bounds[0]) if len(bounds) == 1 else bounds[:2]
        step = bounds[2] if len(bounds) == 3 else 1
        if not isinstance(step, int) or step == 0:
            raise TypedPythonError("the step of a range must be a constant other than 0")
        if isinstance(start, int) and isinstance(stop, int):
            self._unrolled(target.id, builtins.range(start, stop, step), statement.body)
        elif iterable is builtins.range:
            raise TypedPythonError("range over run-time values: import range from anyvirt.typed")
        else:
            self._counted(target.id, start, stop, step, statement.body)

    def _unrolled(self, name: str, numbers: builtins.range, statements: list[ast.stmt]) -> None:
        if len(numbers) > UNROLL_LIMIT:
            raise TypedPythonError(
                f"{len(numbers)} times is too often to unroll a loop over plain ints: write range(u64(...))"
            )
        if isinstance(self._frame.names.get(name), Variable):
            raise TypedPythonError(f"{name} is already a variable: use another name for the loop")
        loop = Loop(self.body.fresh("done"), "")
        for number in numbers:
            self._frame.names[name] = number
            loop.next, loop.at_next = self.body.fresh("next"), []
            self._loop_body(loop, statements)
            if not self.body.closed:
                loop.at_next.append(self._frame.assigned)
                self.body.branch(loop.next)
            self._join(loop.next, loop.at_next)
            if self.body.closed:
                break
        if not self.body.closed:
            loop.at_end.append(self._frame.assigned)
            self.body.branch(loop.end)
        self._join(loop.end, loop.at_end)

    def _counted(
        self, name: str, start: Argument, stop: Argument, step: int, statements: list[ast.stmt]
    ) -> None:
        """A loop with a hidden counter, so that the body may change its variable as in Python."""
        first, last = self.same_type(start, stop)
        if not issubclass(first.type, FixedInteger):
            raise TypedPythonError("the bounds of a range must be integers")
        kind = first.type
        head, following, end = (self.body.fresh(hint) for hint in ("for", "next", "done"))
        counter = self.body.local(ir.llvm_type(kind), f"{name}.count")
        self.body.effect(f"store {first.operand}, ptr {counter}")
        loop = Loop(end, following, [set(self._frame.assigned)])
        self.body.branch_if(self.compare("<" if step > 0 else ">", first, last), head, end)
        self.body.open(head)
        current = self.body.value(f"load {ir.llvm_type(kind)}, ptr {counter}", kind)
        self._assign_name(name, current)
        self._loop_body(loop, statements)
        if not self.body.closed:
            self.body.branch(following)
        self.body.open(following)
        # The distance to the end, unsigned, so that the last step cannot wrap around past it.
        llvm = ir.llvm_type(kind)
        current = self.body.value(f"load {llvm}, ptr {counter}", kind)
        near, far = (current, last) if step > 0 else (last, current)
        distance = self.body.emit(f"sub {llvm} {far.text}, {near.text}")
        more = self.body.emit(f"icmp ugt {llvm} {distance}, {abs(step)}")
        advanced = self.body.emit(f"add {llvm} {current.text}, {step}")
        self.body.effect(f"store {llvm} {advanced}, ptr {counter}")
        self.body.branch_if(more, head, end)
        self._join(end, loop.at_end)

    def _break(self, _: ast.Break) -> None:
        loop = self._innermost_loop()
        loop.at_end.append(set(self._frame.assigned))
        self.body.branch(loop.end)

    def _continue(self, _: ast.Continue) -> None:
        loop = self._innermost_loop()
        loop.at_next.append(set(self._frame.assigned))
        self.body.branch(loop.next)

    def _innermost_loop(self) -> Loop:
        return self._frame.loops[-1]

    def _pass(self, _: ast.Pass) -> None:
        return

    # Expressions ----------------------------------------------------------------------------------------

    def evaluate(self, node: ast.expr) -> Argument:
        """The value of an expression: a `Value`, or what is known at compile time."""
        handler = _EXPRESSIONS.get(type(node))
        if handler is None:
            raise TypedPythonError(f"{construct(node)} cannot be compiled: {ast.unparse(node)}")
        return handler(self, node)

    def _constant(self, node: ast.Constant) -> Argument:
        return node.value

    def _name(self, node: ast.Name) -> Argument:
        return self._read_name(node.id)

    def _tuple(self, node: ast.Tuple) -> Argument:
        return tuple(self.evaluate(element) for element in node.elts)

    def _attribute(self, node: ast.Attribute) -> Argument:
        if isinstance(node.value, ast.Name) and self._is_object(node.value):
            return self.target.read_attribute(self, node.attr)
        owner = self._frame.names.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(owner, Structure):
            if node.attr not in owner.members:
                raise TypedPythonError(f"{owner.kind.__name__} has no attribute {node.attr}")
            return owner.members[node.attr]
        return _compile_time(self._static(node), ast.unparse(node))

    def _subscript(self, node: ast.Subscript) -> Argument:
        match node.value:
            case ast.Attribute(value=ast.Name() as owner, attr=name) if self._is_object(owner):
                return self.target.read_element(self, name, self.evaluate(node.slice))
        sequence, index = self.evaluate(node.value), self.evaluate(node.slice)
        if not isinstance(sequence, tuple):
            raise TypedPythonError(f"{ast.unparse(node.value)} cannot be indexed")
        if isinstance(index, int):
            return _compile_time(sequence[index], ast.unparse(node))
        return self._table_element(sequence, index)

    def _table_element(self, table: tuple[Any, ...], index: Value) -> Value:
        """An element of a constant table; an index outside it gives the last element."""
        kinds = {type(element) for element in table}
        if len(kinds) != 1 or not is_value_type(kind := kinds.pop()) or kind is bool:
            raise TypedPythonError("a table indexed at run time needs elements of one fixed-width type")
        if not ir.is_integer(index.type) or ir.is_signed(index.type) or ir.bit_width(index.type) > 64:
            raise TypedPythonError(f"an index must be u8 ... u64, not {index.type.__name__}")
        wide = self.cast_value(index, typed.u64)
        inside = self.body.emit(f"call i64 @llvm.umin.i64(i64 {wide.text}, i64 {len(table) - 1})")
        llvm = ir.llvm_type(kind)
        pointer = self.body.emit(f"getelementptr {llvm}, ptr {self.module.table(table)}, i64 {inside}")
        return self.body.value(f"load {llvm}, ptr {pointer}", kind)

    def _unary(self, node: ast.UnaryOp) -> Argument:
        if isinstance(node.op, ast.Not):
            condition = self._condition(node.operand)
            if isinstance(condition, bool):
                return not condition
            return self.body.value(f"xor i1 {condition.text}, true", bool)
        return self.negated(node.op, self.evaluate(node.operand))

    def _binary(self, node: ast.BinOp) -> Argument:
        return self.operate(node.op, self.evaluate(node.left), self.evaluate(node.right))

    def _compare(self, node: ast.Compare) -> Argument:
        operator = node.ops[0]
        if len(node.ops) != 1 or not isinstance(operator, (ast.In, ast.NotIn, *COMPARABLE)):
            raise TypedPythonError(f"only single comparisons of numbers can be compiled: {ast.unparse(node)}")
        left, right = self.evaluate(node.left), self.evaluate(node.comparators[0])
        if isinstance(operator, ast.In | ast.NotIn):
            return self.membership(left, right, isinstance(operator, ast.NotIn))
        return self.compare_operands(operator, left, right)

    def _condition(self, node: ast.expr) -> Value | bool:
        value = self.evaluate(node)
        if isinstance(value, bool):
            return value
        if isinstance(value, Value) and value.type is bool:
            return value
        raise TypedPythonError(f"{ast.unparse(node)} is no condition: compare it (with `!= 0`)")

    def _boolean(self, node: ast.BoolOp) -> Argument:
        """`and` and `or`, which evaluate their right side only when it matters."""
        stops_at = isinstance(node.op, ast.Or)
        end, arrivals = self.body.fresh("decided"), []
        for position, operand in enumerate(node.values):
            value = self._condition(operand)
            last = position == len(node.values) - 1
            if isinstance(value, bool) and (value == stops_at or last):
                arrivals.append((str(value).lower(), self.body.label))
                self.body.branch(end)
                break
            if isinstance(value, bool):
                continue
            if last:
                arrivals.append((value.text, self.body.label))
                self.body.branch(end)
                break
            arrivals.append((str(stops_at).lower(), self.body.label))
            following = self.body.fresh("and")
            self.body.branch_if(value, *((end, following) if stops_at else (following, end)))
            self.body.open(following)
        self.body.open(end)
        if len(arrivals) == 1 and arrivals[0][0] in ("true", "false"):
            return arrivals[0][0] == "true"
        return self.body.value(f"phi i1 {_phi(arrivals)}", bool)

    def _conditional(self, node: ast.IfExp) -> Argument:
        condition = self._condition(node.test)
        if isinstance(condition, bool):
            return self.evaluate(node.body if condition else node.orelse)
        then, otherwise, end = (self.body.fresh(hint) for hint in ("then", "else", "end"))
        self.body.branch_if(condition, then, otherwise)
        results, labels = [], []
        for label, branch in ((then, node.body), (otherwise, node.orelse)):
            self.body.open(label)
            results.append(self.evaluate(branch))
            labels.append(self.body.label)
            self.body.branch(end)
        self.body.open(end)
        a, b = self.same_type(*results)
        arrivals = list(zip((a.text, b.text), labels, strict=True))
        return self.body.value(f"phi {ir.llvm_type(a.type)} {_phi(arrivals)}", a.type)

    # Calls ----------------------------------------------------------------------------------------------

    def _call(self, node: ast.Call) -> Argument:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise TypedPythonError(f"only positional arguments can be compiled: {ast.unparse(node)}")
        match node.func:
            case ast.Attribute(value=ast.Name() as owner, attr=method) if self._is_object(owner):
                return self.target.call_method(
                    self, method, [self.evaluate(argument) for argument in node.args]
                )
        called = self._static(node.func)
        if called is builtins.isinstance:
            return self._is_instance(node)
        arguments = [self.evaluate(argument) for argument in node.args]
        if is_value_type(called):
            if len(arguments) != 1:
                raise TypedPythonError(f"{called.__name__} wants one argument")
            return self.cast(arguments[0], called)
        intrinsic = self.target.intrinsics.get(called)
        if intrinsic is not None:
            return self._intrinsic(intrinsic, ast.unparse(node.func), arguments)
        function = getattr(called, "__wrapped__", called)
        if not isinstance(function, types.FunctionType):
            raise TypedPythonError(f"{ast.unparse(node.func)} cannot be called from compiled code")
        return self._call_function(function, arguments)

    def _is_instance(self, node: ast.Call) -> bool:
        """Of which class a structure is, which is known when compiling."""
        owner = self.evaluate(node.args[0]) if len(node.args) == 2 else None
        if not isinstance(owner, Structure):
            raise TypedPythonError("isinstance asks for the class of a parameter that is a structure")
        wanted = node.args[1]
        classes = []
        while isinstance(wanted, ast.BinOp) and isinstance(wanted.op, ast.BitOr):
            classes.append(wanted.right)
            wanted = wanted.left
        return any(owner.kind is self._static(item) for item in [wanted, *classes])

    def _intrinsic(self, intrinsic: Intrinsic, name: str, arguments: list[Argument]) -> Value | None:
        try:
            result: Value | None = intrinsic(self, arguments)
        except TypedPythonError as error:
            if getattr(error, "located", False):
                raise
            raise TypedPythonError(f"{name}: {error}") from None
        return result

    def call_function(self, function: Callable[..., Any], arguments: list[Argument]) -> Argument:
        """Call a typed function: for emitters of words that stand for one."""
        return self._call_function(plain_function(function), arguments)

    def _call_function(self, function: types.FunctionType, arguments: list[Argument]) -> Argument:
        signature = signature_of(function)
        if len(arguments) != len(signature.parameters):
            raise TypedPythonError(
                f"{function.__name__} wants {len(signature.parameters)} argument(s), not {len(arguments)}"
            )
        if signature.takes_objects:
            return self._expand(function, signature, arguments)
        kinds = [kind for _, kind in signature.parameters if kind is not None]
        values = self.typed_arguments(arguments, kinds)
        symbol = self.module.add(function)
        call = f"call {signature.llvm_result} {symbol}({', '.join(value.operand for value in values)})"
        if not signature.results:
            self.body.effect(call)
            return None
        result = self.body.emit(call)
        if len(signature.results) == 1:
            return Value(result, signature.results[0])
        return tuple(
            self.body.value(f"extractvalue {signature.llvm_result} {result}, {position}", kind)
            for position, kind in enumerate(signature.results)
        )

    def _expand(
        self, function: types.FunctionType, signature: Signature, arguments: list[Argument]
    ) -> Argument:
        """Compile a call in place: what a function with object parameters always gets."""
        if any(frame.function is function for frame in self._frames):
            raise TypedPythonError(f"{function.__name__} takes objects and cannot call itself")
        node = self._node
        frame = Frame(function, signature, exit=self.body.fresh("returned"))
        self._frames.append(frame)
        self._bind(
            {
                name: argument
                for (name, _), argument in zip(signature.parameters, arguments, strict=True)
                if not isinstance(argument, ObjectReference)
            }
        )
        self._function_body(function)
        self._frames.pop()
        self._node = node
        values = self._results(frame)
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def _results(self, frame: Frame) -> list[Value]:
        """The results of an expanded call; if it has one way out and that comes last, they need no memory."""
        if frame.only is not None and frame.only[2] == self.body.place():
            values, before, _ = frame.only
            self.body.rewind(before)
            return values
        if not frame.returns and not frame.signature.results:
            # It has jumped or stopped on all ways: what follows cannot be reached.
            return []
        self.body.open(frame.exit)
        return [
            self.body.value(f"load {ir.llvm_type(kind)}, ptr {pointer}", kind)
            for kind, pointer in zip(frame.signature.results, frame.results, strict=True)
        ]

    def _static(self, node: ast.expr) -> object:
        """The compile-time object a name or dotted name stands for."""
        try:
            if isinstance(node, ast.Name) and node.id in self._frame.names:
                return self._frame.names[node.id]
            return static_object(self._frame.function, node)
        except LookupError:
            raise TypedPythonError(f"{ast.unparse(node)} is not known at compile time") from None


_STATEMENTS: dict[type[ast.stmt], Callable[[FunctionCompiler, Any], None]] = {
    ast.Assign: FunctionCompiler._assign,
    ast.AnnAssign: FunctionCompiler._annotated_assign,
    ast.AugAssign: FunctionCompiler._augmented_assign,
    ast.Expr: FunctionCompiler._expression,
    ast.Return: FunctionCompiler._return_statement,
    ast.If: FunctionCompiler._if,
    ast.While: FunctionCompiler._while,
    ast.For: FunctionCompiler._for,
    ast.Break: FunctionCompiler._break,
    ast.Continue: FunctionCompiler._continue,
    ast.Pass: FunctionCompiler._pass,
}
_EXPRESSIONS: dict[type[ast.expr], Callable[[FunctionCompiler, Any], Any]] = {
    ast.Constant: FunctionCompiler._constant,
    ast.Name: FunctionCompiler._name,
    ast.Tuple: FunctionCompiler._tuple,
    ast.Attribute: FunctionCompiler._attribute,
    ast.Subscript: FunctionCompiler._subscript,
    ast.UnaryOp: FunctionCompiler._unary,
    ast.BinOp: FunctionCompiler._binary,
    ast.Compare: FunctionCompiler._compare,
    ast.BoolOp: FunctionCompiler._boolean,
    ast.IfExp: FunctionCompiler._conditional,
    ast.Call: FunctionCompiler._call,
}


def _compile_time(value: object, name: str) -> Argument:
    """A constant of a module or closure as an operand."""
    if isinstance(value, FixedInteger | FixedFloat):
        return ir.constant(value)
    if isinstance(value, bool | float | tuple | str):
        return value
    if isinstance(value, int):
        return int(value)
    raise TypedPythonError(f"{name} is no number that compiled code can use")


def _as_load(target: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(target), mode="eval").body


def _phi(arrivals: list[tuple[str, str]]) -> str:
    return ", ".join(f"[{text}, %{label}]" for text, label in arrivals)
