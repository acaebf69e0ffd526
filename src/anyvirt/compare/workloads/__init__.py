"""The built-in workloads as data. Each is one program in typed Python, compiled for every ISA."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.typed import u64


@dataclass(frozen=True)
class Workload:
    """A program that does a given number of equal rounds of work and checks its own result."""

    name: str
    title: str
    summary: str
    """What a round does, for the reader of a report."""
    module: str

    def main(self) -> Callable[[u64, u64], u64]:
        """The program's typed-Python function."""
        function: Callable[[u64, u64], u64] = import_module(f"{__name__}.{self.module}").main
        return function


WORKLOADS = (
    Workload("integer", "integer", "SHA-256 of 4 KiB", "integer"),
    Workload(
        "floating-point",
        "floating point",
        "200 steps of the motion of five bodies, in double precision",
        "floating_point",
    ),
    Workload(
        "branches",
        "branches",
        "an interpreter of a small bytecode counts the primes below 500",
        "branches",
    ),
    Workload(
        "pointer-chase",
        "memory: pointer chase",
        "131072 dependent loads, scattered over 8 MiB in 4 KiB pages",
        "pointer_chase",
    ),
    Workload(
        "memory-stream",
        "memory: stream",
        "copy, scale, add and triad over three arrays of 4 MiB",
        "memory_stream",
    ),
    Workload(
        "system-calls",
        "system calls",
        "getppid, one byte from /dev/zero, one byte to /dev/null",
        "system_calls",
    ),
    Workload(
        "files",
        "file I/O",
        "1 MiB written, synchronized to disk and read back; 32 files of 1000 bytes made, read and removed",
        "files",
    ),
    Workload(
        "processes",
        "process creation",
        "two forks: one child exits, one executes the program anew",
        "processes",
    ),
)

FIRST_INSTRUCTION = Workload(
    "first-instruction",
    "first instruction",
    "writes one byte as its first act, then waits for the end of its input",
    "first_instruction",
)


def find_workload(name: str) -> Workload:
    """The workload called `name`. Raises KeyError."""
    return {workload.name: workload for workload in (*WORKLOADS, FIRST_INSTRUCTION)}[name]
