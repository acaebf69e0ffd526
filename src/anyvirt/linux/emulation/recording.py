"""What a guest process executes, as files: a trace, written as it goes on, and coverage, written at its end.

The files are opened before the guest begins, so that nothing it does to its root, its directory or its rights
keeps them from being written. Both follow the process through execve(2); the coverage is that of the program
that it has become last. Children are processes of their own and are not recorded.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys
from contextlib import suppress
from pathlib import PurePath
from typing import TYPE_CHECKING

from anyvirt.cpu.code import code_space
from anyvirt.cpu.coverage import Coverage, Module
from anyvirt.cpu.tracing import Trace
from anyvirt.errors import EngineUnavailableError, UsageError
from anyvirt.linux.emulation.abi import RISCV64

if TYPE_CHECKING:
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.linux.emulation.process import Process

_MODE = 0o666
_RESERVED_DESCRIPTORS = 16
"""So many of the highest ones are where guests look for none."""


def prepare(memory: FlatMemory) -> None:
    """Have the interpreters that count and that watch memory ready for guests in `memory`."""
    for instrumented in (False, True):
        code_space(memory, RISCV64.isa, counted=True, instrumented=instrumented)


class Recording:
    """The trace and the coverage of one process, from now on."""

    def __init__(self, process: Process, trace: str, coverage: str) -> None:
        """Write to files; an empty name is none. Raises UsageError for one that cannot be written."""
        self._process = process
        self._lines = _Lines(_File(trace)) if trace else None
        self._coverage_file = _File(coverage) if coverage else None
        self._format = PurePath(coverage).suffix
        self._trace: Trace | None = None
        self._coverage: Coverage | None = None
        self._modules: list[Module] = []
        self.begin()
        process.signals.before_death(self.save)

    @property
    def descriptors(self) -> list[int]:
        """Descriptors that execve(2) must not close."""
        return [file.descriptor for file in self._files() if file.is_open]

    def _files(self) -> list[_File]:
        lines = None if self._lines is None else self._lines.file
        return [file for file in (lines, self._coverage_file) if file is not None]

    def begin(self) -> None:
        """Record the program that the process has become, and its CPU. Raises EngineUnavailableError."""
        self._leave_cpu()
        process = self._process
        if self._lines is not None:
            self._trace = Trace(process.cpu, self._lines)
        if self._coverage_file is not None:
            try:
                self._coverage = Coverage(process.cpu, 0, process.memory.size)
            except OSError as error:
                raise EngineUnavailableError(f"there is no room for coverage: {error.strerror}") from error
            start = min(mapping.start for mapping in process.memory.mappings)
            program = Module(os.fsdecode(process.image.path), start, process.image.heap_start)
            self._modules = [program, Module("guest", 0, process.memory.size)]

    def save(self) -> None:
        """Write what has been covered so far, in place of what was written before."""
        if self._coverage is None or self._coverage_file is None:
            return
        try:
            self._coverage_file.require()
            os.ftruncate(self._coverage_file.descriptor, 0)
            os.lseek(self._coverage_file.descriptor, 0, os.SEEK_SET)
            self._write(self._coverage, os.dup(self._coverage_file.descriptor))
        except OSError as error:
            _complain(f"the coverage cannot be written: {error.strerror}")

    def _write(self, coverage: Coverage, file: int) -> None:
        match self._format:
            case ".json":
                coverage.write_json(file)
            case ".txt":
                coverage.write_text(file)
            case _:
                coverage.write_drcov(file, self._modules)

    def leave_child(self) -> None:
        """In a forked child: the files are its parent's."""
        self._leave_cpu()
        for number in self.descriptors:
            os.close(number)
        self._process.signals.before_death(None)
        self._process.recording = None

    def _leave_cpu(self) -> None:
        for record in (self._trace, self._coverage):
            if record is not None:
                record.close()
        self._trace = self._coverage = None


class _Lines:
    """Writes each line at once: a guest may be killed at any time. Without room, the guest goes on."""

    def __init__(self, file: _File) -> None:
        self.file = file
        self._failed = False

    def write(self, text: str) -> int:
        """As a text file's."""
        data = text.encode()
        try:
            while data and not self._failed:
                self.file.require()
                data = data[os.write(self.file.descriptor, data) :]
        except OSError as error:
            self._failed = True
            _complain(f"the trace cannot be written: {error.strerror}")
        return len(text)


class _File:
    """A new file under a descriptor that guests, who share this process's, hardly use; they may close it."""

    def __init__(self, path: str) -> None:
        """Raises UsageError."""
        try:
            low = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = max(min(limit, 1 << 20) - _RESERVED_DESCRIPTORS, 3)
        self.descriptor = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, lowest)
        os.close(low)
        self._identity = self._seen()

    @property
    def is_open(self) -> bool:
        """Whether the descriptor is still this file and not one that the guest has opened."""
        return self._seen() == self._identity

    def require(self) -> None:
        """Raise OSError unless it is open."""
        if not self.is_open:
            raise OSError(errno.EBADF, "the guest has closed the file")

    def _seen(self) -> tuple[int, int] | None:
        try:
            status = os.fstat(self.descriptor)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _complain(sentence: str) -> None:
    with suppress(OSError):
        print(f"anyvirt: {sentence}", file=sys.stderr, flush=True)
