"""The interface of a control group: what both versions of cgroups can do for one container."""

from __future__ import annotations

import errno
import os
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY = "memory"
CPU = "cpu"
PIDS = "pids"

FREEZE_PATIENCE = 5.0
"""Seconds within which the kernel must have stopped all processes of a group."""
_REMOVAL_PATIENCE = 5.0


class ControllerError(Exception):
    """A limit cannot be honoured on this host; the text says why and what would help."""


class ControlGroup(ABC):
    """The control group of one container: a directory in one hierarchy, or in several of version 1."""

    version: ClassVar[str]

    def __init__(self, directories: Sequence[str]) -> None:
        """Describe a group by its directories, which `make` makes."""
        self.directories = tuple(directories)

    @property
    def description(self) -> tuple[str, tuple[str, ...]]:
        """Plain data from which `open_control_group` gives this group again."""
        return self.version, self.directories

    @abstractmethod
    def make(self) -> None:
        """Make the directories. Raises ControllerError."""

    @abstractmethod
    def limit_memory(self, size: int) -> None:
        """Let the processes use at most `size` bytes of memory and no swap space on top."""

    @abstractmethod
    def limit_cpus(self, cpus: float) -> None:
        """Let the processes use at most `cpus` seconds of CPU time per second."""

    @abstractmethod
    def limit_pids(self, count: int) -> None:
        """Let at most `count` processes and threads exist at once."""

    @abstractmethod
    def open_for_clone(self) -> int | None:
        """A directory that a process can be cloned into, where the kernel can do that (cgroup v2)."""

    @abstractmethod
    def open_for_joining(self) -> tuple[int, ...]:
        """Open files; a process that writes `0` into each has joined what `open_for_clone` does not cover."""

    @abstractmethod
    def views(self) -> dict[str, str]:
        """The directories in which programs look up their limits, by their places below /sys/fs/cgroup."""

    @property
    @abstractmethod
    def freezes(self) -> bool:
        """Whether `freeze` works in this group."""

    @abstractmethod
    def freeze(self, frozen: bool) -> None:
        """Stop all processes of the group, or let them run again; returns when it is done."""

    @abstractmethod
    def out_of_memory_kills(self) -> int:
        """How many processes the kernel has killed because the memory limit was reached."""

    def processes(self) -> set[int]:
        """The processes in the group now."""
        pids: set[int] = set()
        for directory in self.directories:
            try:
                with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                    pids.update(int(line) for line in file)
            except FileNotFoundError:
                continue
        return pids

    def kill(self) -> None:
        """Kill every process of the group, frozen ones too."""
        import signal as signals

        for pid in self.processes():
            try:
                os.kill(pid, signals.SIGKILL)
            except ProcessLookupError:
                continue
        if self.freezes:
            self.freeze(False)

    def remove(self) -> None:
        """Remove the directories, after killing what may still run inside. A missing one is fine."""
        for directory in reversed(self.directories):
            deadline, pause = time.monotonic() + _REMOVAL_PATIENCE, 0.0001
            while not _remove_directory(directory):
                # The last process is gone from the group only some time after its death.
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{directory} still holds processes after {_REMOVAL_PATIENCE:g} s")
                self.kill()
                time.sleep(pause)
                pause = min(2 * pause, 0.01)


def write_value(directory: str, name: str, value: str) -> None:
    """Write a control file; one that is missing or refuses is a ControllerError."""
    path = f"{directory}/{name}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise ControllerError(f"the kernel refused {value} for {path} ({error.strerror})") from error


def read_counter(path: str, key: str) -> int:
    """The number after `key` in a control file of lines `key number`; 0 where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == key:
                    return int(value)
    except OSError:
        return 0
    return 0


def make_directory(path: str) -> None:
    """Make a group's directory. Raises ControllerError."""
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        raise ControllerError(f"{path} cannot be made ({error.strerror})") from error


def _remove_directory(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True
