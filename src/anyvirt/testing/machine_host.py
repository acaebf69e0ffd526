"""A machine in this process that runs in a thread of its own, and commands in it by its agent."""

from __future__ import annotations

import os
import signal as signals
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from anyvirt.agent.client import AgentClient, AgentError
from anyvirt.agent.protocol import InterfaceUp, Run
from anyvirt.errors import AnyvirtError, GuestStartError
from anyvirt.instance import ExitStatus, Process, Streams, Usage
from anyvirt.monitor.carrying import Carrier

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.agent.client import AgentCommand
    from anyvirt.machines.machine import Machine
    from anyvirt.monitor.build import VirtMachine
    from anyvirt.monitor.machine import MountStep

BOOT_LIMIT = 600.0
"""Seconds that a kernel may take until its agent answers, on a busy host with a slow interpreter."""
_ANSWER_LIMIT = 120.0
_CLOSE_LIMIT = 10.0
_LOOK = 0.01


class MachineHost:
    """Satisfies `anyvirt.testing.guest.GuestHost`. It stands still until `resume`."""

    def __init__(self, built: VirtMachine, env: Mapping[str, str], workdir: str) -> None:
        """Commands are run with `env` in `workdir` unless they are started with others."""
        self.machine: Machine = built.machine
        self.built = built
        self._env = dict(env)
        self._workdir = workdir
        self._client = AgentClient(built.channel)
        self._thread: threading.Thread | None = None
        self._problem = ""
        self._commands: list[_AgentProcess] = []

    # Running --------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """See GuestHost.resume."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="anyvirt-machine", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """See GuestHost.pause."""
        thread, self._thread = self._thread, None
        while thread is not None and thread.is_alive():
            # A stop in the moment before a run has begun has no effect on it.
            self.machine.stop()
            thread.join(_LOOK)

    def _run(self) -> None:
        try:
            ending = self.machine.run()
            if not ending.is_final:
                return
            self._problem = f"its machine has ended ({ending.reason})"
        except Exception as error:
            self._problem = f"its machine broke: {error!r}"
        # Whoever waits for the agent is told that it is gone.
        self.built.channel.close()

    def leave(self) -> None:
        """Let it stand still for ever, without a conversation, and be whoever's it is."""
        self.pause()
        self._client.close()
        for command in self._commands:
            command.close()
        self._commands.clear()

    def close(self) -> None:
        """See GuestHost.close."""
        self.leave()
        self.built.close()

    # The agent ------------------------------------------------------------------------------------------

    def connect(self, timeout: float = BOOT_LIMIT) -> None:
        """Greet the agent. Raises GuestStartError when it does not answer."""
        try:
            self._client.connect(timeout)
        except AgentError as error:
            raise self._failure(error) from None

    def set_up(self) -> None:
        """What is done once in a guest that has booted: its loopback interface, and shares."""
        with suppress(AgentError):  # of a kernel without a network
            self._client.request(InterfaceUp("lo"), _ANSWER_LIMIT)
        for step in self.built.shares:
            self._mount(step)

    def _mount(self, step: MountStep) -> None:
        problem: AgentError | None = None
        for way in step.ways:
            try:
                for request in way:
                    self._client.request(request, _ANSWER_LIMIT)
                return
            except AgentError as error:
                problem = error
        raise GuestStartError(f"{step.what} cannot be mounted: {problem}")

    def exec(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        streams: Streams | None = None,
    ) -> Process:
        """See Instance.exec. Raises GuestStartError for a guest that stands still or has ended."""
        if self._thread is None:
            raise GuestStartError(f"{command[0]} cannot be started: the guest is paused")
        run = Run(tuple(command), {**self._env, **(env or {})}, workdir or self._workdir)
        try:
            started = self._client.run(run)
        except AgentError as error:
            raise self._failure(error) from None
        process = _AgentProcess(self, started, streams or Streams())
        self._commands = [known for known in self._commands if not known.is_over]
        self._commands.append(process)
        return process

    def _failure(self, error: AgentError) -> AnyvirtError:
        """An error of the agent's, told by what became of its machine."""
        return GuestStartError(f"{self._problem or error}{self.built.console_tail()}")

    def lost(self, error: AgentError) -> AnyvirtError:
        """Why a command's end is not known."""
        return self._failure(error)


class _AgentProcess(Process):
    """A command of the agent's, with its streams carried to the host's descriptors."""

    def __init__(self, host: MachineHost, command: AgentCommand, streams: Streams) -> None:
        self._host = host
        self._command = command
        copies = [os.dup(fd) for fd in (streams.stdin, streams.stdout, streams.stderr)]
        self._carrier = Carrier(command, *copies, is_terminal=False)
        self._status: ExitStatus | None = None
        self._failure: AnyvirtError | None = None
        self._waiter = threading.Thread(target=self._await, daemon=True)
        self._waiter.start()

    def _await(self) -> None:
        try:
            status = self._command.wait()
        except AgentError as error:
            self._failure = self._host.lost(error)
            self._carrier.give_up()
            self._carrier.finish()
            return
        self._carrier.finish()
        self._status = status

    @property
    def pid(self) -> int:
        """Its number in the guest."""
        return self._command.pid

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or its guest has."""
        return not self._waiter.is_alive()

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """See Process.wait."""
        self._waiter.join(timeout)
        if self._failure is not None:
            raise self._failure
        if self._status is None:
            raise TimeoutError
        return self._status

    def signal(self, number: int) -> None:
        """See Process.signal."""
        if not self.is_over:
            with suppress(AgentError):
                self._command.signal(number, group=number == signals.SIGKILL)

    def usage(self) -> Usage:
        """See Process.usage."""
        return self._command.usage()

    def close(self) -> None:
        """Kill it if it runs. A guest that stands still does not notice until it goes on."""
        if not self.is_over:
            self.signal(signals.SIGKILL)
            self._carrier.give_up()
            self._waiter.join(_CLOSE_LIMIT)
