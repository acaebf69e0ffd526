"""Traces of all harts of a machine into one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from anyvirt.cpu.tracing import Trace
from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from anyvirt.machines.machine import Machine


class _Tagged:
    """Lines of one hart among those of others."""

    def __init__(self, file: TextIO, tag: str) -> None:
        self._file = file
        self._tag = tag

    def write(self, text: str, /) -> int:
        """See `anyvirt.cpu.tracing.Lines`."""
        return self._file.write(self._tag + text)


class Recording:
    """What all harts execute from now on, until it is closed."""

    def __init__(self, machine: Machine, path: str, *, limit: int | None = None) -> None:
        """`limit` is the most lines of each hart. Raises UsageError."""
        try:
            self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - it is closed with the recording
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from None
        several = len(machine.harts) > 1
        self._traces = [
            Trace(hart.cpu, _Tagged(self._file, f"{hart.number}: " if several else ""), limit=limit)
            for hart in machine.harts
        ]

    def close(self) -> int:
        """End it, and say how many lines there are."""
        for trace in self._traces:
            trace.close()
        self._file.close()
        return sum(trace.lines for trace in self._traces)
