"""Whole programs: from typed-Python functions to a static Linux executable for any ISA, kept in a cache.

The front end writes LLVM IR, llvmlite (imported only when the cache has nothing) turns it into an object
file, and the linker adds the start-up code and makes the executable. There is no C library in it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyvirt.errors import UsageError
from anyvirt.jit import frontend, ir, system
from anyvirt.jit.linker import link
from anyvirt.jit.object_file import (
    Binding,
    ObjectFile,
    Relocation,
    Section,
    SectionFlags,
    SectionType,
    Symbol,
    read_object,
)
from anyvirt.jit.program_cache import keep_program, kept_program
from anyvirt.jit.program_isa import PROGRAM_ISAS, MachineCode, ProgramIsa
from anyvirt.jit.relocations import LINK_RULES
from anyvirt.jit.target import Target
from anyvirt.typed import TypedPythonError, s64, u64

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyvirt.isa.names import Isa
    from anyvirt.jit.frontend import FunctionCompiler
    from anyvirt.jit.ir import Value
    from anyvirt.jit.target import Argument

_MAXIMUM_ARGUMENTS = 6


def build_program(main: Callable[[u64, u64], u64], isa: Isa) -> bytes:
    """The executable file of a program that begins and ends with `main`.

    `main` is a typed-Python function that gets the number of arguments and the address of their pointers, as
    in C, and returns the exit status. What it calls, directly or not, becomes part of the program. Raises
    TypedPythonError for what cannot be compiled, UsageError for an ISA without programs, LinkError.
    """
    rules = PROGRAM_ISAS.get(isa)
    if rules is None:
        raise UsageError(f"programs cannot be built for {isa}: only for {' and '.join(PROGRAM_ISAS)}")
    module = program_ir(main, rules)
    name = _cache_key(module, isa)
    program = kept_program(name)
    if program is None:
        program = link([_stub_object(rules, isa), read_object(_compile(module, rules))], isa=isa)
        keep_program(name, program)
    return program


def program_ir(main: Callable[[u64, u64], u64], rules: ProgramIsa) -> str:
    """The LLVM IR text of the program that `main` begins."""
    module = _ProgramModule(ProgramTarget(rules.system_calls))
    symbol = module.add(main, name="main", linkage="")
    signature = frontend.FunctionCompiler(module, main).signature
    if [kind for _, kind in signature.parameters] != [u64, u64] or signature.results != (u64,):
        raise TypedPythonError(f"{symbol} must be declared as main(count: u64, arguments: u64) -> u64")
    words = ", ".join(["i64"] * (1 + _MAXIMUM_ARGUMENTS))
    module.define(f"declare i64 @system_call({words})\n")
    module.define('attributes #0 = { nounwind "no-builtins" }\n')
    return f'target triple = "{rules.triple}"\n{module.text()}'


class ProgramTarget(Target):
    """The words of `jit.system` on top of typed Python's own."""

    def __init__(self, system_calls: Mapping[str, int]) -> None:
        super().__init__()
        self._system_calls = system_calls
        self._texts: dict[bytes, str] = {}
        self.intrinsics |= {system.system_call: self._system_call, system.text: self._text}

    def _system_call(self, compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        name, *given = arguments or [None]
        if not isinstance(name, str) or name not in self._system_calls:
            raise TypedPythonError(
                f"the first argument is the name of a system call, one of {', '.join(self._system_calls)}"
            )
        if len(given) > _MAXIMUM_ARGUMENTS:
            raise TypedPythonError(f"a system call has at most {_MAXIMUM_ARGUMENTS} arguments")
        words = [f"i64 {self._system_calls[name]}", *(_word(compiler, argument) for argument in given)]
        words += ["i64 0"] * (1 + _MAXIMUM_ARGUMENTS - len(words))
        return compiler.body.value(f"call i64 @system_call({', '.join(words)})", s64)

    def _text(self, compiler: FunctionCompiler, arguments: list[Argument]) -> Value:
        if len(arguments) != 1 or not isinstance(arguments[0], bytes):
            raise TypedPythonError("wants one bytes literal")
        content = arguments[0]
        if content not in self._texts:
            self._texts[content] = f"@text.{len(self._texts)}"
            escaped = "".join(f"\\{byte:02X}" for byte in content + b"\0")
            compiler.module.define(
                f"{self._texts[content]} = private unnamed_addr constant "
                f'[{len(content) + 1} x i8] c"{escaped}"\n'
            )
        return compiler.body.value(f"ptrtoint ptr {self._texts[content]} to i64", u64)


def _word(compiler: FunctionCompiler, argument: Argument) -> str:
    if isinstance(argument, int) and not isinstance(argument, bool):
        return ir.literal(argument, u64).operand
    if isinstance(argument, ir.Value) and argument.type in (u64, s64):
        return argument.operand
    raise TypedPythonError("an argument of a system call is a u64, an s64 or a plain number: cast it")


class _ProgramModule(frontend.Module):
    """A module whose functions LLVM may not turn into calls of the C library, because there is none."""

    def add(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        linkage: str = "internal ",
        attributes: str = "#0",
        make: Callable[[Callable[..., Any]], FunctionCompiler] | None = None,
    ) -> str:
        """See frontend.Module.add."""
        return super().add(function, name=name, linkage=linkage, attributes=attributes, make=make)


def _compile(module: str, rules: ProgramIsa) -> bytes:
    """The object file that LLVM makes of `module` with the optimizations of -O2."""
    from anyvirt.jit.llvm import llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(rules.triple).create_target_machine(
        cpu=rules.cpu,
        features=rules.features,
        opt=2,
        reloc="static",
        codemodel="small",
        abiname=rules.abi,
    )
    parsed = llvm.parse_assembly(module)
    parsed.data_layout = str(machine.target_data)
    parsed.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(parsed, passes)
    compiled: bytes = machine.emit_object(parsed)
    return compiled


def _stub_object(rules: ProgramIsa, isa: Isa) -> ObjectFile:
    """The functions in machine code that every program begins with, as if they were a compiled module."""
    sections = [Section("", 0, SectionFlags(0), 1, 0)]
    symbols = [Symbol("", Binding.LOCAL, 0)]
    for function in (rules.start, rules.system_call):
        symbols.append(Symbol(function.name, Binding.GLOBAL, len(sections), size=len(function.code)))
        relocations: tuple[Relocation, ...] = ()
        if function.calls is not None:
            offset, callee, kind, addend = function.calls
            relocations = (Relocation(offset, kind, len(symbols), addend),)
            symbols.append(Symbol(callee, Binding.GLOBAL, 0))
        sections.append(_code_section(function, relocations))
    return ObjectFile(LINK_RULES[isa].machine, rules.object_flags, tuple(sections), tuple(symbols))


def _code_section(function: MachineCode, relocations: tuple[Relocation, ...]) -> Section:
    flags = SectionFlags.ALLOC | SectionFlags.EXECUTE
    code = function.code
    return Section(f".text.{function.name}", SectionType.PROGBITS, flags, 16, len(code), code, relocations)


def _cache_key(module: str, isa: Isa) -> str:
    """A hash of everything that the executable depends on."""
    key = hashlib.sha256(f"{isa} {PROGRAM_ISAS[isa]} {version('llvmlite')} {_own_sources()}\n".encode())
    key.update(module.encode())
    return key.hexdigest()[:32]


@cache
def _own_sources() -> str:
    """A hash of the code that compiles and links."""
    digest = hashlib.sha256()
    for name in ("program", "linker", "relocations", "object_file", "executable_file"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return digest.hexdigest()
