"""A monitor whose machine runs by counted instructions, the same in each run.

There is one thread for all of it, and the machine stands while the host does its part: whatever the agent
says is answered before the next instruction, so what comes from outside comes at the same instruction each
time. The command's input is all there before the machine begins.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from anyvirt.agent.client import AgentClient, AgentError
from anyvirt.agent.protocol import NONCE_SIZE, PAYLOAD_LIMIT
from anyvirt.errors import AnyvirtError
from anyvirt.monitor.server import Monitor, end_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.agent.client import OutputStream
    from anyvirt.agent.streams import ByteStream
    from anyvirt.linux.container.channel import Channel
    from anyvirt.monitor.machine import MonitoredMachine
    from anyvirt.monitor.orders import CommandOrder
    from anyvirt.monitor.phases import Phases

_CHUNK = 1 << 16


class CountedClient(AgentClient):
    """A conversation with an agent in which the guest runs only while something is waited for."""

    def __init__(self, stream: ByteStream, advance: Callable[[], None], arrived: Callable[[], None]) -> None:
        """`advance` runs the guest until there is something to read; `arrived` is told when it was read."""
        super().__init__(stream)
        self._advance = advance
        self._arrived = arrived

    def wait_for(self, ready: Callable[[], bool], timeout: float | None) -> None:
        """See AgentClient.wait_for. The host's time does not count."""
        while not ready():
            if self._ended:
                raise AgentError(f"the guest's agent is gone: {self._ended}")
            self._advance()
            self._buffer += self._stream.read(PAYLOAD_LIMIT)
            try:
                self._take_frames(self._buffer)
            except (AgentError, ValueError) as error:
                self._end(str(error))
            self._arrived()

    def _make_nonce(self) -> bytes:
        return bytes(NONCE_SIZE)

    def _begin_reading(self, identity: int, nonce: bytes) -> None:
        """The guest has just been made: nothing in the channel was meant for anybody else."""


class CountedMonitor(Monitor):
    """One machine with one command."""

    def __init__(self, control: Channel, machine: MonitoredMachine, phases: Phases) -> None:
        super().__init__(control, machine, phases)
        self._client = CountedClient(machine.channel, self._advance, self._deliver)
        self._outputs: dict[int, OutputStream] = {}
        """By descriptors of the host."""
        self._lost: set[int] = set()
        """Those that nobody reads."""

    def run(self, channel: Channel, order: CommandOrder | None, streams: tuple[int, ...]) -> None:
        """See Monitor.run. There is a command."""
        assert order is not None
        self._main = channel
        for target in (self._serve_control, self._listen):
            threading.Thread(target=target, daemon=True).start()
        try:
            self._run_command(order, *streams)
        except AnyvirtError as error:
            self._conclude_failed(error)
        except Exception as error:
            self._conclude(("failed", "GuestStartError", f"the machine broke: {error!r}"))

    def _run_command(self, order: CommandOrder, stdin: int, stdout: int, stderr: int) -> None:
        given = _read_all(stdin)
        self._await_agent()
        command = self._start(order)
        self._phases.mark("command")
        self._outputs = {stdout: command.stdout, stderr: command.stderr}
        command.write(given)
        command.close_input()
        status = command.wait()
        self._deliver()
        self._verdict = (*end_of(status, command.usage()), self._machine.instructions)
        if self._machine.is_lasting:
            # It ends with the machine's end, of which `_advance` hears.
            self._client.shut_down()
            while True:
                self._advance()
        self._conclude(self._verdict)

    def _advance(self) -> None:
        """Let the machine run until its agent has said something."""
        end = self._machine.advance()
        if end is not None:
            self._conclude_machine(end)

    def _deliver(self) -> None:
        """Hand on what the command has written."""
        for fd, stream in self._outputs.items():
            while data := stream.take():
                if fd not in self._lost and not _write_all(fd, data):
                    self._lost.add(fd)

    def _listen(self) -> None:
        """A signal ends the machine as it would end a process: a command would not get it at a fixed time."""
        while (received := self._main.receive()) is not None:
            self._signal_early(received[0])

    def _shut_down(self) -> None:
        """For the sake of a signal nothing is run on."""


def _read_all(fd: int) -> bytes:
    """What a descriptor gives, to its end; nothing of a terminal."""
    if os.isatty(fd):
        return b""
    data = bytearray()
    with suppress(OSError):  # as of a directory
        while piece := _read(fd):
            data += piece
    return bytes(data)


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            select.select([fd], [], [])


def _write_all(fd: int, data: bytes) -> bool:
    """Whether there is somebody who takes it."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:
            return False
    return True
