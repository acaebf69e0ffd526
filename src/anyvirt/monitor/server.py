"""The monitor: it makes a machine, runs it in its main thread, and serves the instance in others.

The process ends as soon as there is nothing more to say: when the main command has ended, when the machine
has, or when whoever started it is gone. Nothing outlives it but what guests changed in shares and
disks.
"""

from __future__ import annotations

import os
import signal as signals
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.agent.client import AgentClient, AgentError
from anyvirt.agent.protocol import InterfaceUp, Run, RunFlag
from anyvirt.errors import AnyvirtError, GuestStartError
from anyvirt.jit.apart import compile_apart
from anyvirt.linux.container.channel import Channel
from anyvirt.monitor.carrying import Carrier
from anyvirt.monitor.machine import End
from anyvirt.monitor.orders import CommandOrder, MachineOrder, Message
from anyvirt.monitor.phases import Phases

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.agent.client import AgentCommand
    from anyvirt.devices.bus import State
    from anyvirt.instance import ExitStatus, Usage
    from anyvirt.monitor.machine import MonitoredMachine, MountStep

_BOOT_LIMIT = 600.0
"""Seconds that a kernel may take until its agent answers, on a busy host with a slow interpreter."""
_ANSWER_LIMIT = 120.0
_GRACE = 2.0
_SHUTDOWN_LIMIT = 30.0
_HARMLESS = frozenset(
    {
        signals.SIGCHLD,
        signals.SIGCONT,
        signals.SIGURG,
        signals.SIGWINCH,
        signals.SIGSTOP,
        signals.SIGTSTP,
        signals.SIGTTIN,
        signals.SIGTTOU,
    }
)
"""Signals that do not end a process that does nothing about them."""


def serve(fd: int, make: Callable[[MachineOrder, Phases], MonitoredMachine]) -> None:
    """Serve the instance at the other end of the control channel `fd`. Does not return."""
    control = Channel(fd)
    received = control.receive()
    if received is None:
        os._exit(1)
    (_, machine_order, command_order, began), (main, *streams) = received
    phases = Phases(began)
    phases.mark("monitor")
    compile_apart()
    try:
        machine = make(MachineOrder.of(machine_order), phases)
    except AnyvirtError as error:
        control.send(_failure(error))
        os._exit(1)
    control.send(("done",))
    command = CommandOrder.of(command_order) if command_order is not None else None
    monitor = Monitor(control, machine, phases)
    if machine.is_counted:
        from anyvirt.monitor.counted import CountedMonitor

        monitor = CountedMonitor(control, machine, phases)
    monitor.run(Channel(main), command, tuple(streams))


def _failure(error: AnyvirtError) -> Message:
    return "failed", type(error).__name__, str(error)


class Monitor:
    """One machine with its commands."""

    def __init__(self, control: Channel, machine: MonitoredMachine, phases: Phases) -> None:
        self._control = control
        self._machine = machine
        self._phases = phases
        self._client = AgentClient(machine.channel)
        self._booted = threading.Event()
        self._begun = threading.Event()
        """Set when the main command, if there is one, is under way."""
        self._main_command: AgentCommand | None = None
        self._ended = threading.Event()
        self._concluding = threading.Lock()
        self._verdict: Message | None = None
        """How it has ended, while the machine is still being turned off."""

    def run(self, channel: Channel, order: CommandOrder | None, streams: tuple[int, ...]) -> None:
        """Run the machine and its main command, or none. Does not return."""
        self._main = channel
        for target in (
            self._serve_control,
            lambda: self._boot(order, streams),
        ):
            threading.Thread(target=target, daemon=True).start()
        try:
            end = self._machine.run(lambda text: _show(text, order, streams))
        except Exception as error:
            self._conclude(("failed", "GuestStartError", f"the machine broke: {error!r}"))
        self._ended.set()
        self._conclude_machine(end)

    def _conclude_machine(self, end: End) -> None:
        """The machine has ended: because its command had, or by itself."""
        if self._verdict is not None:
            self._conclude(self._verdict)
        if end is End.OFF:
            self._conclude(("ended", 0, 0.0, 0.0, 0))
        tail = self._machine.console_tail()
        self._conclude(("failed", "GuestStartError", f"the machine {end.value}{tail}"))

    def _conclude(self, message: Message) -> None:
        """Say how it ended and end, once: whoever comes later waits for the end of the process."""
        self._concluding.acquire()
        self._machine.close()
        try:
            self._main.send((*message, self._phases.done))
        except OSError:
            os._exit(1)
        os._exit(0)

    # The instance's requests ------------------------------------------------------------------------------

    def _serve_control(self) -> None:
        while (received := self._control.receive()) is not None:
            message, fds = received
            if message[0] == "snapshot":
                self._control.send(self._snapshot(*message[1:]))
                continue
            if message[0] == "pause":
                self._machine.pause()
            elif message[0] == "resume":
                self._machine.resume()
            elif message[0] == "run":
                order, channel = CommandOrder.of(message[1]), Channel(fds[0])
                threading.Thread(
                    target=self._run_further, args=(order, channel, fds[1:]), daemon=True
                ).start()
            self._control.send(("done",))
        os._exit(1)

    def _snapshot(self, directory: str, compress: bool, guest: Message) -> Message:
        """The answer to a request for a snapshot; it waits for the guest's boot."""
        self._begun.wait()
        main = self._main_command

        def conversation() -> State:
            agent = self._client.save_state()
            if main is not None and str(main.identity) not in agent["commands"]:
                raise GuestStartError("the guest cannot be saved: its command has ended")
            return {"guest": guest, "main": None if main is None else main.identity, "agent": agent}

        try:
            with self._client.held():
                self._machine.snapshot(Path(directory), compress=compress, conversation=conversation)
        except AnyvirtError as error:
            return _failure(error)
        return ("done",)

    def _run_further(self, order: CommandOrder, channel: Channel, streams: tuple[int, ...]) -> None:
        self._booted.wait()
        try:
            command = self._start(order)
        except AnyvirtError as error:
            for fd in streams:
                os.close(fd)
            _tell(channel, _failure(error))
            channel.close()
            return
        _tell(channel, ("started", command.pid))
        carrier = _carrier(command, order, streams)
        listener = threading.Thread(target=_listen, args=(channel, command, carrier), daemon=True)
        listener.start()
        try:
            message = end_of(command.wait(), command.usage())
        except AgentError as error:
            message = _failure(error)
            carrier.give_up()
        carrier.finish()
        _tell(channel, message)
        listener.join()
        channel.close()

    # The main command -------------------------------------------------------------------------------------

    def _boot(self, order: CommandOrder | None, streams: tuple[int, ...]) -> None:
        starting = threading.Event()
        pending: list[Message] = []
        command: list[tuple[AgentCommand, Carrier]] = []
        lock = threading.Lock()

        def listen() -> None:
            while (received := self._main.receive()) is not None:
                with lock:
                    if command:
                        _apply(received[0], *command[0])
                    elif order is None or not starting.is_set():
                        self._signal_early(received[0])
                    else:
                        pending.append(received[0])

        threading.Thread(target=listen, daemon=True).start()
        try:
            saved = self._machine.conversation
            going_on = None if saved is None else self._go_on(saved)
            if saved is None:
                self._await_agent()
            self._booted.set()
            if order is None:
                self._begun.set()
                return
            starting.set()
            started = going_on or self._start(order)
            carrier = _carrier(started, order, streams)
            if going_on is not None and order.terminal is not None:
                going_on.resize(*order.terminal)
            self._main_command = started
            self._begun.set()
            self._phases.mark("command")
            with lock:
                for message in pending:
                    _apply(message, started, carrier)
                command.append((started, carrier))
            status = started.wait()
            carrier.finish()
        except AnyvirtError as error:
            self._conclude_failed(error)
            return
        self._verdict = end_of(status, started.usage())
        if self._machine.is_lasting:
            self._shut_down()
        self._conclude(self._verdict)

    def _go_on(self, saved: State) -> AgentCommand | None:
        """Take up the conversation of another monitor: its main command, if that runs.

        Its other commands are killed: who has started them is not here.
        """
        try:
            commands, identity = self._client.resume(saved["agent"]), saved["main"]
            main = None if identity is None else commands.pop(identity)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise AgentError("the snapshot's conversation with the agent makes no sense") from None
        for command in commands.values():
            command.signal(signals.SIGKILL, group=True)
            command.forget()
        self._phases.mark("agent")
        return main

    def _await_agent(self) -> None:
        self._client.connect(_BOOT_LIMIT)
        self._phases.mark("kernel and agent")
        with suppress(AgentError):  # of a kernel without a network
            self._client.request(InterfaceUp("lo"), _ANSWER_LIMIT)
        self._set_up_network()
        for step in self._machine.shares:
            self._mount(step)
        if self._machine.shares:
            self._phases.mark("mounts")

    def _set_up_network(self) -> None:
        try:
            for request in self._machine.network:
                self._client.request(request, _ANSWER_LIMIT)
        except AgentError as error:
            raise AgentError(f"the guest's network cannot be set up: {error}") from None

    def _mount(self, step: MountStep) -> None:
        """Go the ways there are until one leads there."""
        problem: AgentError | None = None
        for way in step.ways:
            try:
                for request in way:
                    self._client.request(request, _ANSWER_LIMIT)
                return
            except AgentError as error:
                problem = error
        raise AgentError(f"{step.what} cannot be mounted: {problem}")

    def _start(self, order: CommandOrder) -> AgentCommand:
        rows, columns = order.terminal or (24, 80)
        run = Run(
            order.words,
            dict(order.environment),
            order.directory,
            flags=RunFlag.TERMINAL if order.terminal is not None else RunFlag(0),
            rows=rows,
            columns=columns,
        )
        return self._client.run(run)

    def _signal_early(self, message: Message) -> None:
        """A signal where there is no command: it ends the machine as it would end a process."""
        if message[0] != "signal" or message[1] in _HARMLESS:
            return
        self._verdict = "ended", message[1], 0.0, 0.0, 0
        if self._booted.is_set():
            self._shut_down()
        self._conclude(self._verdict)

    def _shut_down(self) -> None:
        """Let the guest write what it has kept back, and turn itself off."""

        def ask() -> None:
            with suppress(AgentError):
                self._client.shut_down(grace=_GRACE)

        threading.Thread(target=ask, daemon=True).start()
        self._ended.wait(_SHUTDOWN_LIMIT)

    def _conclude_failed(self, error: AnyvirtError) -> None:
        """The agent's end is told by the machine's end, if there is one about to come."""
        if isinstance(error, AgentError):
            if self._ended.wait(_GRACE):
                threading.Event().wait()
            error = AgentError(f"{error}{self._machine.console_tail()}")
        self._conclude(_failure(error))


def _show(text: str, order: CommandOrder | None, streams: tuple[int, ...]) -> None:
    """A line of ours on the main command's terminal, or among its errors."""
    is_terminal = order is not None and order.terminal is not None
    with suppress(OSError):
        os.write(streams[-1], f"{text}\r\n".encode() if is_terminal else f"{text}\n".encode())


def _carrier(command: AgentCommand, order: CommandOrder, streams: tuple[int, ...]) -> Carrier:
    if order.terminal is not None:
        (line,) = streams
        return Carrier(command, line, line, None, is_terminal=True)
    stdin, stdout, stderr = streams
    return Carrier(command, stdin, stdout, stderr, is_terminal=False)


def _listen(channel: Channel, command: AgentCommand, carrier: Carrier) -> None:
    """Do what the instance asks; when it lets go of a command, that has to end."""
    while (received := channel.receive()) is not None:
        _apply(received[0], command, carrier)
    _apply(("signal", int(signals.SIGKILL)), command, carrier)


def _apply(message: Message, command: AgentCommand, carrier: Carrier) -> None:
    try:
        if message[0] == "signal":
            number = message[1]
            command.signal(number, group=number in (signals.SIGKILL, signals.SIGSTOP, signals.SIGCONT))
            if number == signals.SIGKILL:
                carrier.give_up()
        elif message[0] == "resize":
            command.resize(message[1], message[2])
    except AgentError:
        return  # whoever waits for the command hears of it


def end_of(status: ExitStatus, usage: Usage) -> Message:
    """What is said of a command that has ended."""
    wait_status = status.signal if status.signal is not None else (status.code or 0) << 8
    return "ended", wait_status, usage.user_seconds, usage.system_seconds, usage.peak_memory or 0


def _tell(channel: Channel, message: Message) -> None:
    try:
        channel.send(message)
    except OSError:
        return  # nobody wants to know
