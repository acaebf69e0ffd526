"""The host's end of the agent's channel: requests, commands and their streams, over any stream of bytes.

The guest is hostile: sizes, identities and windows are checked. Where something makes no sense the
conversation is over, and whoever waits for something gets an AgentError.
"""

from __future__ import annotations

import os
import secrets
import struct
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from anyvirt.agent.protocol import (
    HEADER,
    HEADER_SIZE,
    NONCE_SIZE,
    PAYLOAD_LIMIT,
    PLAN_IDENTITY,
    VERSION,
    WINDOW,
    Kind,
    Request,
    Run,
    Shutdown,
    Step,
    Stream,
    frame,
)
from anyvirt.errors import AnyvirtError, CommandNotFoundError, NotExecutableError
from anyvirt.instance import ExitStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.agent.streams import ByteStream

_WELCOME = struct.Struct("<8sIIII")
_ENDED = struct.Struct("<IIQQQ")
_UNAME_FIELD = 65
_NOT_FOUND = frozenset({2, 20})  # ENOENT, ENOTDIR
_HOLD_LIMIT = 30.0
"""Seconds that a guest may take until it takes what somebody is sending."""


class AgentError(AnyvirtError):
    """The guest's agent did not do what it was asked, or its channel has ended."""


@dataclass(frozen=True)
class Welcome:
    """Who answers at the other end, and how it began."""

    version: int
    release: str
    """The guest kernel's version, as uname -r says."""
    machine: str
    """Its name for the instruction set, as uname -m says."""
    host_name: str
    plan_steps: int
    """How many requests of the plan were carried out."""
    plan_error: int
    """The error number of the next one, 0 if there was none."""
    plan_kind: int
    """What the last one was (Kind)."""


class AgentClient:
    """A conversation with one agent. As a context manager it closes the channel at the end."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._condition = threading.Condition()
        self._write_lock = threading.Lock()
        self._identity = 0
        self._answers: dict[int, bytes | None] = {}
        self._commands: dict[int, AgentCommand] = {}
        self._buffer = bytearray()
        """The beginning of a frame that has not arrived yet as a whole."""
        self._ended = ""
        self._reader: threading.Thread | None = None

    def __enter__(self) -> AgentClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, timeout: float) -> Welcome:
        """Greet the agent and wait for its answer. Raises AgentError after `timeout` seconds, or if the plan
        that the guest began with could not be carried out.
        """
        nonce = self._make_nonce()
        identity = self._new_identity()
        self._answers[identity] = None
        self._begin_reading(identity, nonce)
        self._send(Kind.HELLO, identity, nonce)
        welcome = _parse_welcome(self._answer(identity, timeout))
        if welcome.version != VERSION:
            raise AgentError(
                f"the guest's agent speaks version {welcome.version} of its protocol, not {VERSION}"
            )
        if welcome.plan_error:
            step = f"step {welcome.plan_steps + 1}, {_kind_name(welcome.plan_kind)}"
            raise AgentError(
                f"the guest could not set itself up: {step}, failed: {os.strerror(welcome.plan_error)}"
            )
        return welcome

    def request(self, request: Request, timeout: float | None = None) -> None:
        """Have something done in the guest. Raises AgentError if it fails or takes longer."""
        error, _ = self._ask(request.kind, request.payload(), timeout)
        if error:
            raise AgentError(f"the guest's agent failed at {_kind_name(request.kind)}: {os.strerror(error)}")

    def run(self, run: Run, timeout: float | None = None) -> AgentCommand:
        """Start a command in the guest.

        Raises CommandNotFoundError and NotExecutableError as a shell would tell them apart, and AgentError
        for everything else that prevents it.
        """
        payload = run.payload()
        with self._condition:
            identity = self._new_identity()
            command = self._commands[identity] = AgentCommand(self, identity)
            self._answers[identity] = None
        try:
            self._send(Kind.RUN, identity, payload)
            answer = self._answer(identity, timeout)
        except BaseException:
            self.forget(identity)
            raise
        if len(answer) == 4:
            (command.pid,) = struct.unpack("<I", answer)
            return command
        self.forget(identity)
        raise _run_error(run, *struct.unpack("<II", answer))

    def shut_down(self, how: Shutdown = Shutdown.POWER_OFF, *, grace: float = 2.0) -> None:
        """Ask all processes of the guest to end, kill what is left after `grace` seconds, and turn it off."""
        self._ask(Kind.SHUTDOWN, struct.pack("<II", how, int(grace * 1000)), None)

    def close(self) -> None:
        """Close the channel."""
        self._end("the channel was closed")
        self._stream.close()
        if self._reader is not None and self._reader is not threading.current_thread():
            self._reader.join(timeout=1)

    # For snapshots --------------------------------------------------------------------------------------

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is sent meanwhile. Raises AgentError if the guest does not take what is being sent."""
        if not self._write_lock.acquire(timeout=_HOLD_LIMIT):
            raise AgentError("the guest does not take what it is sent")
        try:
            yield
        finally:
            self._write_lock.release()

    def save_state(self) -> dict[str, Any]:
        """All that `resume` needs, for another channel to the same agent; nothing is sent or arrives."""
        with self._condition:
            if self._ended:
                raise AgentError(f"the guest's agent is gone: {self._ended}")
            return {
                "identity": self._identity,
                "buffer": bytes(self._buffer),
                "commands": {
                    str(identity): command.save_state() for identity, command in self._commands.items()
                },
            }

    def resume(self, state: dict[str, Any]) -> dict[int, AgentCommand]:
        """Go on with a conversation, instead of `connect`; its commands by their identities.

        Raises KeyError, TypeError or ValueError for a state that makes no sense.
        """
        self._identity, self._buffer = int(state["identity"]), bytearray(state["buffer"])
        for name, saved in state["commands"].items():
            self._commands[int(name)] = AgentCommand.resumed(self, int(name), saved)
        self._reader = threading.Thread(target=self._read_on, name="anyvirt-agent", daemon=True)
        self._reader.start()
        return dict(self._commands)

    # For commands ---------------------------------------------------------------------------------------

    def send_about(
        self, kind: Kind, identity: int, payload: bytes, note: Callable[[], object] = lambda: None
    ) -> None:
        """Send a frame that has no answer; `note` writes down that it was sent, with which it is saved.

        Raises AgentError when the channel has ended.
        """
        self._send(kind, identity, payload, note)

    def wait_for(self, ready: Callable[[], bool], timeout: float | None) -> None:
        """Wait until `ready()`. TimeoutError after `timeout` seconds, AgentError when the channel ends."""
        with self._condition:
            if not self._condition.wait_for(lambda: ready() or bool(self._ended), timeout):
                raise TimeoutError
            if not ready():
                raise AgentError(f"the guest's agent is gone: {self._ended}")

    # ----------------------------------------------------------------------------------------------------

    def _make_nonce(self) -> bytes:
        return secrets.token_bytes(NONCE_SIZE)

    def _begin_reading(self, identity: int, nonce: bytes) -> None:
        """Have what arrives from now on taken."""
        self._reader = threading.Thread(
            target=self._read_all, args=(identity, nonce), name="anyvirt-agent", daemon=True
        )
        self._reader.start()

    def _new_identity(self) -> int:
        self._identity = self._identity % (PLAN_IDENTITY - 1) + 1
        return self._identity

    def forget(self, identity: int) -> None:
        """Do without the answer to a request, or without a command."""
        with self._condition:
            self._commands.pop(identity, None)
            self._answers.pop(identity, None)

    def _ask(self, kind: Kind, payload: bytes, timeout: float | None) -> tuple[int, int]:
        with self._condition:
            identity = self._new_identity()
            self._answers[identity] = None
        self._send(kind, identity, payload)
        answer = self._answer(identity, timeout)
        error, step = struct.unpack("<II", answer) if len(answer) == 8 else (0, 0)
        return error, step

    def _answer(self, identity: int, timeout: float | None) -> bytes:
        try:
            self.wait_for(lambda: self._answers.get(identity) is not None, timeout)
        except TimeoutError:
            raise AgentError(f"the guest's agent did not answer within {timeout:g} seconds") from None
        with self._condition:
            return self._answers.pop(identity) or b""

    def _send(
        self, kind: Kind, identity: int, payload: bytes, note: Callable[[], object] = lambda: None
    ) -> None:
        data = frame(kind, identity, payload)
        try:
            with self._write_lock:
                if self._ended:
                    raise AgentError(f"the guest's agent is gone: {self._ended}")
                with self._condition:
                    note()
                self._stream.write(data)
        except OSError as error:
            self._end(str(error.strerror or error))
            raise AgentError(f"the guest's agent is gone: {self._ended}") from None

    def _end(self, reason: str) -> None:
        with self._condition:
            self._ended = self._ended or reason
            self._condition.notify_all()

    # The reading thread ---------------------------------------------------------------------------------

    def _read_all(self, identity: int, nonce: bytes) -> None:
        try:
            self._buffer = self._skip_to_welcome(identity, nonce)
        except (AgentError, OSError, ValueError) as error:
            self._end(str(error))
            return
        self._read_on()

    def _read_on(self) -> None:
        try:
            while True:
                self._take_frames(self._buffer)
                self._buffer += self._some()
        except (AgentError, OSError, ValueError) as error:
            self._end(str(error))

    def _take_frames(self, buffer: bytearray) -> None:
        """Take the whole frames that a buffer begins with. Raises AgentError for nonsense."""
        while len(buffer) >= HEADER_SIZE:
            size, about, kind, zero = HEADER.unpack_from(buffer)
            if size > PAYLOAD_LIMIT or zero:
                raise AgentError("it sent what is no frame")
            if len(buffer) < HEADER_SIZE + size:
                return
            self._dispatch(kind, about, bytes(buffer[HEADER_SIZE : HEADER_SIZE + size]))
            del buffer[: HEADER_SIZE + size]

    def _some(self) -> bytes:
        data = self._stream.read(PAYLOAD_LIMIT)
        if not data:
            raise AgentError("its channel has ended")
        return data

    def _skip_to_welcome(self, identity: int, nonce: bytes) -> bytearray:
        """Leave out what was meant for a host before us: all up to the answer to our greeting."""
        buffer = bytearray()
        while True:
            start = buffer.find(nonce) - HEADER_SIZE
            if start >= 0:
                _, about, kind, _ = HEADER.unpack_from(buffer, start)
                if (about, kind) == (identity, Kind.WELCOME):
                    return buffer[start:]
            del buffer[: -(HEADER_SIZE + NONCE_SIZE)]
            buffer += self._some()

    def _dispatch(self, kind: int, identity: int, payload: bytes) -> None:
        with self._condition:
            command = self._commands.get(identity)
            if kind in (Kind.WELCOME, Kind.DONE, Kind.STARTED):
                if identity in self._answers:
                    self._answers[identity] = payload
            elif command is not None:
                command.receive(kind, payload)
                if kind == Kind.ENDED:
                    del self._commands[identity]
            self._condition.notify_all()


class AgentCommand:
    """A command that runs in a guest. Its output is kept until it is read, up to a window of each stream."""

    def __init__(self, client: AgentClient, identity: int) -> None:
        self.pid = 0
        """Its number in the guest."""
        self.stdout = OutputStream(client, identity, Stream.OUTPUT)
        self.stderr = OutputStream(client, identity, Stream.ERRORS)
        self._client = client
        self.identity = identity
        """The number that frames about it bear."""
        self._window = WINDOW
        self._has_input = True
        self._status: ExitStatus | None = None
        self._usage = Usage()

    def save_state(self) -> dict[str, Any]:
        """With the client's lock held; of a command that has not ended."""
        return {
            "pid": self.pid,
            "window": self._window,
            "has_input": self._has_input,
            "stdout": self.stdout.save_state(),
            "stderr": self.stderr.save_state(),
        }

    @classmethod
    def resumed(cls, client: AgentClient, identity: int, state: dict[str, Any]) -> AgentCommand:
        """A command that another client has started. Raises KeyError, TypeError or ValueError."""
        command = cls(client, identity)
        command.pid, command._window = int(state["pid"]), int(state["window"])
        command._has_input = bool(state["has_input"])
        command.stdout.load_state(state["stdout"])
        command.stderr.load_state(state["stderr"])
        return command

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Wait for the end; TimeoutError after `timeout` seconds, AgentError if the guest is gone before.

        Whatever the command writes beyond a window must be read for it to end, as from a pipe.
        """
        self._client.wait_for(lambda: self._status is not None, timeout)
        assert self._status is not None
        return self._status

    def usage(self) -> Usage:
        """What it used by the guest kernel's account, once it has ended."""
        return self._usage

    def write(self, data: bytes, timeout: float | None = None) -> None:
        """Give it input, waiting while it takes none. What it does not want to read any more is dropped."""
        deadline = None if timeout is None else time.monotonic() + timeout
        rest = memoryview(data if self._has_input else b"")
        while rest:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            self._client.wait_for(lambda: self._window > 0 or self._status is not None, left)
            if self._status is not None:
                return
            part = bytes(rest[: min(self._window, PAYLOAD_LIMIT)])
            self._client.send_about(Kind.INPUT, self.identity, part, partial(self._use_window, len(part)))
            rest = rest[len(part) :]

    def close_input(self) -> None:
        """The end of its input."""
        if self._has_input:
            self._client.send_about(Kind.INPUT, self.identity, b"", self._end_input)

    def _use_window(self, size: int) -> None:
        self._window -= size

    def _end_input(self) -> None:
        self._has_input = False

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send it a signal, or its whole process group."""
        self._client.send_about(Kind.SIGNAL, self.identity, struct.pack("<II", number, group))

    def resize(self, rows: int, columns: int) -> None:
        """Tell its terminal the size of its window, in characters."""
        self._client.send_about(Kind.RESIZE, self.identity, struct.pack("<4H", rows, columns, 0, 0))

    def forget(self) -> None:
        """Do without it: what it does is of no interest any more."""
        self._client.forget(self.identity)

    def receive(self, kind: int, payload: bytes) -> None:
        """Take a frame about this command, with the client's lock held. Raises AgentError for nonsense."""
        if kind == Kind.OUTPUT:
            self.stdout.receive(payload)
        elif kind == Kind.ERRORS:
            self.stderr.receive(payload)
        elif kind == Kind.CREDIT and len(payload) == 8:
            self._window += struct.unpack("<II", payload)[1]
            if self._window > WINDOW:
                raise AgentError("it granted more than a window")
        elif kind == Kind.ENDED and len(payload) == _ENDED.size:
            status, _, user, system, peak = _ENDED.unpack(payload)
            self._usage = Usage(user / 1e6, system / 1e6, peak)
            self._status = ExitStatus.from_wait(os.waitstatus_to_exitcode(status & 0xFFFF))
            self.stdout.receive(b"")
            self.stderr.receive(b"")
        else:
            raise AgentError(f"it sent a frame of kind {kind} that makes no sense")


class OutputStream:
    """What a command writes to one of its streams."""

    def __init__(self, client: AgentClient, identity: int, stream: Stream) -> None:
        self._client = client
        self._identity = identity
        self._stream = stream
        self._kept = bytearray()
        self._at_end = False
        self._owed = 0

    def save_state(self) -> dict[str, Any]:
        """With the client's lock held: what was not read yet is in it."""
        return {"kept": bytes(self._kept), "at_end": self._at_end, "owed": self._owed}

    def load_state(self, state: dict[str, Any]) -> None:
        """The opposite. Raises KeyError, TypeError or ValueError."""
        self._kept, self._at_end = bytearray(state["kept"]), bool(state["at_end"])
        self._owed = int(state["owed"])

    def read(self, size: int = PAYLOAD_LIMIT, timeout: float | None = None) -> bytes:
        """At least one byte and at most `size`; none at the end. TimeoutError after `timeout` seconds."""
        self._client.wait_for(lambda: bool(self._kept) or self._at_end, timeout)
        data = bytes(self._kept[:size])
        del self._kept[:size]
        self._owed += len(data)
        if self._owed >= WINDOW // 4 and not self._at_end:
            granted = struct.pack("<II", self._stream, self._owed)
            self._client.send_about(Kind.CREDIT, self._identity, granted, self._pay)
        return data

    def _pay(self) -> None:
        self._owed = 0

    def take(self) -> bytes:
        """What has arrived and was not read yet, without waiting."""
        return self.read() if self._kept else b""

    def read_all(self) -> bytes:
        """All up to the end."""
        return b"".join(iter(self.read, b""))

    def receive(self, payload: bytes) -> None:
        """Take what arrived, with the client's lock held; nothing is the end."""
        if not payload:
            self._at_end = True
        elif self._at_end or len(self._kept) + len(payload) > WINDOW:
            raise AgentError("it sent more than a window of output")
        self._kept += payload


def _parse_welcome(payload: bytes) -> Welcome:
    if len(payload) != _WELCOME.size + 6 * _UNAME_FIELD:
        raise AgentError("the guest's agent greeted with nonsense")
    _, version, steps, error, kind = _WELCOME.unpack_from(payload)
    names = [
        payload[start : start + _UNAME_FIELD].partition(b"\0")[0].decode(errors="replace")
        for start in range(_WELCOME.size, len(payload), _UNAME_FIELD)
    ]
    return Welcome(version, names[2], names[4], names[1], steps, error, kind)


def _kind_name(kind: int) -> str:
    try:
        return Kind(kind).name.lower().replace("_", " ")
    except ValueError:
        return f"request {kind}"


def _run_error(run: Run, error: int, step: int) -> AnyvirtError:
    name, reason = os.fsdecode(run.command[0]), os.strerror(error)
    if step == Step.EXECUTE and error in _NOT_FOUND:
        return CommandNotFoundError(f"there is no command {name} in the guest")
    if step == Step.EXECUTE:
        return NotExecutableError(f"the guest cannot execute {name}: {reason}")
    if step == Step.DIRECTORY:
        return AgentError(f"the guest has no working directory {run.directory}: {reason}")
    at = Step(step).name.lower() if step in list(Step) else "an unknown step"
    return AgentError(f"the guest could not start {name}: {reason} (at: {at})")
