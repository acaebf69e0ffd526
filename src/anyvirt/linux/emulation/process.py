"""Process: all that the emulation knows of one guest process beyond what the host's kernel keeps for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn, Protocol

from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.identity import MemoryLimits
from anyvirt.linux.emulation.threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.cpu.memory import FlatMemory
    from anyvirt.linux.emulation.abi import Abi
    from anyvirt.linux.emulation.debugger import Debugger
    from anyvirt.linux.emulation.image import Image
    from anyvirt.linux.emulation.recording import Recording
    from anyvirt.linux.emulation.signals import SignalState
    from anyvirt.linux.emulation.threads import Thread


class Release(Protocol):
    """What a child of vfork(2) does for its parent."""

    def __call__(self, *, ending: bool) -> None:
        """Let the parent go on; `ending` tells that no program was executed."""


class Process:
    """One guest process: its address space, its threads, and what execve(2) replaces.

    What belongs to one thread is that of the calling one.
    """

    memory: FlatMemory
    image: Image
    heap_end: int
    """The program break (brk(2))."""

    def __init__(self, abi: Abi, image: Image, make_cpu: Callable[[FlatMemory], Interpreter]) -> None:
        """Start `image`; `make_cpu` makes a virtual CPU for an address space."""
        self.abi = abi
        self.threads = ThreadGroup()
        self.limits = MemoryLimits()
        self.lock_flags = 0
        """MAP_LOCKED for new mappings after mlockall(MCL_FUTURE)."""
        self.on_release: Release | None = None
        """In a child of vfork(2), what lets the parent go on: to be called once it executes or exits."""
        self.debugger: Debugger | None = None
        """gdb, if it has the process (`anyvirt.linux.emulation.debugger`)."""
        self.recording: Recording | None = None
        """The files that tell what the process executes (`anyvirt.linux.emulation.recording`)."""
        self._make_cpu = make_cpu
        self.adopt(image)

    def adopt(self, image: Image) -> None:
        """Become `image`: a new address space and a virtual CPU at the program's beginning."""
        self.image = image
        self.memory = image.memory
        self.heap_end = image.heap_start
        self.lock_flags = 0
        self.thread.replace_cpu(self._make_cpu(image.memory))
        self.cpu.x[self.abi.stack_register] = image.stack_pointer
        self.cpu.pc = image.entry

    @property
    def thread(self) -> Thread:
        """The calling thread."""
        return self.threads.current

    @property
    def cpu(self) -> Interpreter:
        """The calling thread's virtual CPU."""
        return self.threads.current.cpu

    @property
    def signals(self) -> SignalState:
        """The calling thread's signals."""
        return self.threads.current.signals

    @property
    def stack_pointer(self) -> int:
        """The guest's stack pointer."""
        return self.cpu.x[self.abi.stack_register]

    def pointer(self, address: int, length: int = 0) -> int:
        """A guest pointer as the host's; NULL stays NULL. Raises GuestFault for one that leads outside."""
        return self.memory.host_address(address, length) if address else 0

    def blocking_call(self, name: str, *arguments: int) -> int:
        """A system call of the host that ends when a signal arrives, even one that came just before it.

        The result is as `host.call`'s, or NOT_STARTED: then the guest's call has to be made again.
        """
        return self.cpu.system_call(HOST[name], *arguments)

    def exit(self, status: int) -> NoReturn:
        """End the process, whose status is the lowest 8 bits."""
        self.release(ending=True)
        if self.debugger is not None:
            self.debugger.ended(status=status & 0xFF)
        if self.recording is not None:
            self.recording.save()
        self.threads.release_all(self.memory)
        os._exit(status & 0xFF)

    def release(self, *, ending: bool = False) -> None:
        """Let a parent that waits in vfork(2) go on, because this process executes a program or ends."""
        if self.on_release is not None:
            self.on_release(ending=ending)
            self.on_release = None
