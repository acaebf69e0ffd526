"""The emulator as a program: `main` becomes the guest process that its arguments name."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.tiers import Tier, chosen_tier, make_executor
from anyvirt.errors import AnyvirtError, EngineUnavailableError, ExitCode
from anyvirt.linux.elf import ElfError
from anyvirt.linux.emulation.abi import RISCV64
from anyvirt.linux.emulation.identity import INFINITY
from anyvirt.linux.emulation.image import load_image
from anyvirt.linux.emulation.process import Process
from anyvirt.linux.emulation.processes import set_command_name
from anyvirt.linux.emulation.programs import find_executable, has_isa
from anyvirt.linux.emulation.registry import Table
from anyvirt.linux.emulation.run import run
from anyvirt.linux.emulation.variables import (
    COVERAGE_VARIABLE,
    DOOR_VARIABLE,
    GDB_VARIABLE,
    GUEST_PREFIX,
    OWN_PREFIX,
    TRACE_VARIABLE,
    Place,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.linux.emulation.image import Image
    from anyvirt.linux.emulation.table import SystemCall

Made = TypeVar("Made")

STRACE_VARIABLE = "ANYVIRT_STRACE"
_COMPILER = "llvmlite"


def main(command: list[str]) -> NoReturn:
    """Run `command`, a program found through PATH and its arguments, as a guest process; never returns.

    What keeps it from starting is one sentence on standard error and the exit status a shell would give.
    """
    debugger_address, trace, coverage = (
        os.environ.pop(name, "") for name in (GDB_VARIABLE, TRACE_VARIABLE, COVERAGE_VARIABLE)
    )
    _forget_coercion()
    try:
        _enter_root()
        if not command:
            _idle()
        process = _make_process(_load(command))
        process.signals.inherit()
        if debugger_address:
            _debug(process, debugger_address)
        if trace or coverage:
            _record(process, trace, coverage)
    except AnyvirtError as error:
        print(f"anyvirt: {error}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(error.exit_code)
    set_command_name(os.fsencode(command[0]))
    # What was imported stays: forked children need not copy it to scan it.
    gc.freeze()
    gc.enable()
    run(process, _calls())


def _forget_coercion() -> None:
    """Undo what Python did to the environment if it found no locale (PEP 538): the guest has none, then."""
    if os.environ.get("LC_CTYPE") != "C.UTF-8":
        return
    with open("/proc/self/environ", "rb") as file:
        given = file.read().split(b"\0")
    if not any(variable.startswith(b"LC_CTYPE=") for variable in given):
        del os.environ["LC_CTYPE"]


def _enter_root() -> None:
    """Change to a root of the guest's own, where one is asked for. Raises AnyvirtError."""
    if DOOR_VARIABLE not in os.environ:
        return
    from anyvirt.linux.emulation.root import enter

    # In there nothing can be compiled, nor be loaded but what was used before.
    _compiling(_prepare_tiers, _prepare_tiers)
    enter(Place.told(os.environ))


def _idle() -> NoReturn:
    """Be the guest that others join, until a signal ends it."""
    import signal

    if DOOR_VARIABLE not in os.environ:
        usage()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while True:
        signal.pause()


def _make_process(image: Image) -> Process:
    return _compiling(lambda: Process(RISCV64, image, _make_cpu), _prepare_tiers)


def _compiling(make: Callable[[], Made], compile_for_it: Callable[[], object]) -> Made:
    """Make something. The first time on a machine compiles a part of the interpreter for it.

    The compiler is large, so it is imported by a process of its own, which does what `compile_for_it` says,
    unless the cache turns out to be unwritable.
    """
    for prepare in (_hide_compiler, partial(_compile_apart, compile_for_it), _reveal_compiler):
        prepare()
        try:
            return make()
        except ModuleNotFoundError:
            continue
        except OSError as error:
            raise EngineUnavailableError(
                f"the interpreter's code cannot be loaded or kept: {error.strerror}: {error.filename}"
            ) from error
    raise EngineUnavailableError(
        f"the interpreter cannot be compiled, for {_COMPILER} is not installed: pip install {_COMPILER}"
    )


def _compile_apart(compile_into_cache: Callable[[], object]) -> None:
    """Have a child compile something into the cache."""
    pid = os.fork()
    if pid == 0:
        # What goes wrong here goes wrong in the parent too, which then tells.
        with contextlib.suppress(Exception):
            _reveal_compiler()
            compile_into_cache()
        os._exit(0)
    os.waitpid(pid, 0)


def _debug(process: Process, address: str) -> None:
    """Wait for gdb, with all that it may need of the CPU ready. Raises AnyvirtError."""
    from anyvirt.linux.emulation.debugger import wait_for_debugger
    from anyvirt.linux.emulation.recording import prepare

    _compiling(lambda: prepare(process.memory), lambda: prepare(FlatMemory()))
    wait_for_debugger(process, address)


def _record(process: Process, trace: str, coverage: str) -> None:
    """Have what the guest executes written to files, where they are named. Raises AnyvirtError."""
    from anyvirt.linux.emulation.recording import Recording, prepare

    _compiling(lambda: prepare(process.memory), lambda: prepare(FlatMemory()))
    process.recording = Recording(process, trace, coverage)


def _hide_compiler() -> None:
    """Make importing the compiler fail, even where it lies beside this package."""
    sys.modules[_COMPILER] = None  # type: ignore[assignment]


def _reveal_compiler() -> None:
    """Let the compiler be found among the site packages, which an isolated start leaves out."""
    import site

    del sys.modules[_COMPILER]
    site.main()
    site.addsitedir(site.getusersitepackages())


def _make_cpu(memory: FlatMemory) -> Interpreter:
    tier = chosen_tier()
    cpu = make_executor(RISCV64.isa, memory, tier=tier)
    if tier is Tier.STENCIL:
        from anyvirt.cpu.stencil_executor import StencilExecutor

        # It does nothing without stencils, so it is now that they are found missing.
        assert isinstance(cpu, StencilExecutor)
        cpu.prepare()
    return cpu


def _prepare_tiers() -> None:
    """Compile everything that is compiled ahead of time."""
    from anyvirt.cpu.translator import Translator

    cpu = _make_cpu(FlatMemory())
    if isinstance(cpu, Translator):
        cpu.prepare()


def _calls() -> Mapping[int, SystemCall]:
    table = Table(RISCV64)
    if os.environ.get(STRACE_VARIABLE, "0") in ("", "0"):
        return table
    from anyvirt.linux.emulation.trace import TracedTable

    return TracedTable(table)


def _load(command: list[str]) -> Image:
    """The image of the command. Raises the AnyvirtError that says why there is none."""
    import resource

    words = tuple(os.fsencode(word) for word in command)
    environment = tuple(name + b"=" + value for name, value in _environment())
    stack_limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    try:
        program = find_executable(_search(command[0]), words)
    except OSError as error:
        raise _explained(command, error.strerror) from error
    try:
        if not has_isa(program.fd, RISCV64.isa):
            raise _explained(command, f"it is not a {RISCV64.isa} program")
        return load_image(
            RISCV64, program.fd, program.path, program.name, program.arguments, environment,
            stack_limit & INFINITY,
        )  # fmt: skip
    except ElfError as error:
        raise _not_executable(command, f"it is {error}") from error
    except OSError as error:
        if error.filename:
            raise _lacks_linker(command, error) from error
        raise _not_executable(command, error.strerror) from error
    finally:
        os.close(program.fd)


def _environment() -> Iterator[tuple[bytes, bytes]]:
    """The guest's variables: in a root of its own without ours."""
    own, for_guest = OWN_PREFIX.encode(), GUEST_PREFIX.encode()
    for name, value in os.environb.items():
        if DOOR_VARIABLE not in os.environ or not name.startswith(own):
            yield name, value
        elif name.startswith(for_guest):
            yield name.removeprefix(for_guest), value


def _search(name: str) -> bytes:
    """The path that execvp(3) would take for `name`."""
    if "/" not in name:
        for directory in os.get_exec_path():
            path = os.path.join(directory, name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return os.fsencode(path)
    return os.fsencode(name)


def _explained(command: list[str], reason: str | None) -> AnyvirtError:
    """The error of a command that cannot run, in the words that every engine uses for it."""
    from anyvirt.guest import Guest
    from anyvirt.linux.program import find_program

    try:
        find_program(Guest(command=command))
    except AnyvirtError as error:
        return error
    return _not_executable(command, reason)


def _not_executable(command: list[str], reason: str | None) -> AnyvirtError:
    from anyvirt.errors import NotExecutableError

    return NotExecutableError(f"{command[0]} cannot be executed: {reason}")


def _lacks_linker(command: list[str], error: OSError) -> AnyvirtError:
    """The error of a program whose dynamic linker cannot be used."""
    from anyvirt.errors import CommandNotFoundError, NotExecutableError

    linker = os.fsdecode(error.filename)
    sentence = (
        f"{command[0]} cannot be executed: its dynamic linker {linker} cannot be used: {error.strerror}"
    )
    if error.errno != errno.ENOENT:
        return NotExecutableError(sentence)
    return CommandNotFoundError(f"{sentence}; a root file system that has it is given with --rootfs")


def usage() -> NoReturn:
    """Tell how the emulator is called."""
    print("anyvirt: the emulator needs the program to run as its first argument", file=sys.stderr)
    sys.stderr.flush()
    os._exit(ExitCode.USAGE)
