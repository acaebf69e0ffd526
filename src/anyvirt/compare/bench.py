"""The place where workloads run: their programs and a scratch directory, which every engine's guests see.

An engine that shares directories has it mounted at `/anyvirt-compare`, so that file I/O meets the same disk
of the host on every engine. The others run in the host's file system anyway.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from anyvirt.compare.booted import BootedGuests, boots
from anyvirt.compare.guest_run import MeasurementError
from anyvirt.compare.workloads import FIRST_INSTRUCTION, WORKLOADS
from anyvirt.engines.engine import Capability
from anyvirt.errors import AnyvirtError
from anyvirt.guest import Guest, Mount
from anyvirt.isa.names import Isa
from anyvirt.jit.program_isa import PROGRAM_ISAS
from anyvirt.linux.program import Program
from anyvirt.paths import cache_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from anyvirt.compare.booted import Starter
    from anyvirt.compare.workloads import Workload
    from anyvirt.engines.engine import Engine
    from anyvirt.instance import Instance

_IN_GUEST = "/anyvirt-compare"
_SCRATCH = "scratch"
_PREFIX = "compare-"
_BUILD_TIMEOUT = 300


class Bench:
    """A directory with the programs that `engines` need, removed at the end of the context."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        self._isas = {engine.name: choose_isa(engine) for engine in engines}
        self._directory = Path()
        self._booted = BootedGuests()

    def __enter__(self) -> Self:
        remove_abandoned(cache_directory())
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=cache_directory()))
        (self._directory / _SCRATCH).mkdir()
        # A guest's root may be another user of the host.
        os.chmod(self._directory, 0o755)
        os.chmod(self._directory / _SCRATCH, 0o1777)
        isas = {isa for isa in self._isas.values() if isa is not None}
        try:
            build_in_another_process(self._directory, sorted(isas))
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._booted.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def isa(self, engine: Engine) -> Isa:
        """The ISA of the programs that run on `engine`. Raises MeasurementError when there is none."""
        isa = self._isas[engine.name]
        if isa is None:
            raise MeasurementError(workload_refusal(engine) or "")
        return isa

    def guest(self, engine: Engine, workload: Workload, *arguments: str) -> Guest:
        """The guest that runs `workload` on `engine`, in the scratch directory."""
        name = program_name(workload, self.isa(engine))
        if Capability.SHARE not in engine.capabilities:
            return Guest(
                command=(str(self._directory / name), *arguments), workdir=str(self._directory / _SCRATCH)
            )
        return Guest(
            command=(f"{_IN_GUEST}/{name}", *arguments),
            workdir=f"{_IN_GUEST}/{_SCRATCH}",
            mounts=(Mount(self._directory, _IN_GUEST),),
        )

    def starter(self, engine: Engine) -> Starter:
        """Who starts workloads on `engine`: it itself or, where it boots kernels, one machine for all."""
        return self._booted.starter(engine, self.guest(engine, FIRST_INSTRUCTION))

    def running(self, engine: Engine) -> Instance:
        """The idle guest in which commands are run beside it: where kernels are booted, the machine that
        workloads are run in. Raises what `Engine.start` does.
        """
        return self._booted.instance(engine, self.guest(engine, FIRST_INSTRUCTION))

    def let_go(self, engine: Engine) -> None:
        """End the idle guest, unless workloads are run in it."""
        if not boots(engine):
            self._booted.end(engine)


def choose_isa(engine: Engine) -> Isa | None:
    """The ISA of the workloads for `engine`: the host's own if it runs that, else the first that it runs."""
    ordered = sorted(PROGRAM_ISAS, key=lambda isa: isa is not Isa.host())
    for isa in ordered:
        if engine.refusal(Program("/program", "/program", isa, dynamic=False)) is None:
            return isa
    return None


def workload_refusal(engine: Engine) -> str | None:
    """Why no workload can run on `engine`, or None when they can."""
    if choose_isa(engine) is not None:
        return None
    return f"it runs none of the ISAs that the workloads are built for ({', '.join(PROGRAM_ISAS)})"


def program_name(workload: Workload, isa: Isa) -> str:
    """The file name of a workload's program."""
    return f"{workload.name}.{isa}"


def build_programs(directory: Path, isas: Iterable[Isa]) -> None:
    """Put the programs of all workloads into `directory`."""
    from anyvirt.jit.program import build_program

    for isa in isas:
        for workload in (*WORKLOADS, FIRST_INSTRUCTION):
            path = directory / program_name(workload, isa)
            path.write_bytes(build_program(workload.main(), isa))
            path.chmod(0o755)


def build_in_another_process(directory: Path, isas: Sequence[Isa]) -> None:
    """Like `build_programs`, and this process stays without the compiler's 100 MB.

    A resident process that starts guests would pay for them in each fork. Raises AnyvirtError.
    """
    code = "import sys; from anyvirt.compare.bench import main; main(sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    words = [sys.executable, "-c", code, str(directory), *isas]
    try:
        done = subprocess.run(
            words, env=environment, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise AnyvirtError(
            f"the workloads could not be compiled: LLVM took more than {_BUILD_TIMEOUT} s"
        ) from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise AnyvirtError(f"the workloads could not be compiled: {lines[-1]}")


def main(arguments: Sequence[str]) -> None:
    """The process that builds: a directory and the ISAs to build for."""
    build_programs(Path(arguments[0]), [Isa(name) for name in arguments[1:]])


def remove_abandoned(directory: Path) -> None:
    """Remove what comparisons left that were killed: their directories bear their process's number."""
    for path in directory.glob(f"{_PREFIX}*"):
        number = path.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(ValueError):
            if not Path("/proc", str(int(number))).exists():
                shutil.rmtree(path, ignore_errors=True)
