"""A command in a guest, as a test sees it: running in the background, and afterwards its result."""

from __future__ import annotations

import signal as signals
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from anyvirt.errors import AnyvirtError, GuestTimeoutError
from anyvirt.pipes import GuestPipes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anyvirt.instance import Process, Streams

_SHOWN = 2000
"""Characters of each output in the message of an error."""


class CommandHost(Protocol):
    """Where commands can be started: an Instance, or a machine with an agent."""

    def exec(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        streams: Streams | None = None,
    ) -> Process:
        """See Instance.exec."""


@dataclass(frozen=True)
class Result:
    """A command that has ended."""

    command: tuple[str, ...]
    status: int
    """As a shell's `$?`: the exit code, or 128 plus the signal's number."""
    raw_stdout: bytes
    raw_stderr: bytes
    seconds: float
    """Wall-clock time from the request to the end."""

    @property
    def stdout(self) -> str:
        """The standard output as text; bytes that are no UTF-8 are replaced."""
        return self.raw_stdout.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """The error output likewise."""
        return self.raw_stderr.decode(errors="replace")

    @property
    def succeeded(self) -> bool:
        """Whether the status is 0."""
        return self.status == 0


class CommandFailedError(AnyvirtError):
    """A command that was to succeed has not; `result` is what it did."""

    def __init__(self, engine: str, result: Result) -> None:
        lines = [f"{' '.join(result.command)!r} ended with status {result.status} in the {engine} guest"]
        for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
            if text.strip():
                lines.append(f"{name}: {text[-_SHOWN:].rstrip()}")
        super().__init__("\n".join(lines))
        self.result = result


class RunningCommand:
    """A command that runs while the test does something else. Its output is collected all the time."""

    def __init__(
        self,
        host: CommandHost,
        command: Sequence[str],
        *,
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> None:
        """Start it. Raises what the host raises for a command that cannot be started."""
        self.command = tuple(command)
        self._result: Result | None = None
        with ExitStack() as stack:
            self._pipes = GuestPipes(stack, feed=input, capture=True, limit=None)
            self._began = time.monotonic()
            self._process = host.exec(self.command, env=env, workdir=workdir, streams=self._pipes.guest_ends)
            self._pipes.started(self._process.end_fd)
            self._stack = stack.pop_all()
        self._carrier = threading.Thread(target=self._pipes.carry, args=(None,), daemon=True)
        self._carrier.start()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        try:
            self.wait(0)
        except GuestTimeoutError:
            return True
        return False

    @property
    def stdout(self) -> str:
        """What it has written to its standard output so far."""
        return bytes(self._pipes.stdout).decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has written to its error output so far."""
        return bytes(self._pipes.stderr).decode(errors="replace")

    def wait(self, timeout: float = 60) -> Result:
        """Its result, when it has ended; GuestTimeoutError after `timeout` seconds, and it runs on."""
        if self._result is not None:
            return self._result
        deadline = time.monotonic() + timeout
        self._carrier.join(timeout)
        try:
            status = self._process.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise GuestTimeoutError(
                f"{' '.join(self.command)!r} had not ended after {timeout:g} seconds; {self._said()}"
            ) from None
        self._carrier.join()
        self._result = Result(
            self.command,
            status.shell,
            bytes(self._pipes.stdout),
            bytes(self._pipes.stderr),
            time.monotonic() - self._began,
        )
        self.close()
        return self._result

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.signal(number)

    def stop(self, timeout: float = 10) -> Result:
        """Ask it to end (SIGTERM), and kill it if it has not after `timeout` seconds."""
        self.signal(signals.SIGTERM)
        with suppress(GuestTimeoutError):
            return self.wait(timeout)
        self.signal(signals.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """Kill it if it runs, and give back what it holds. Idempotent."""
        close = getattr(self._process, "close", None)
        if close is not None:
            close()
        self._carrier.join()
        self._stack.close()

    def _said(self) -> str:
        text = (self.stdout + self.stderr)[-_SHOWN:].strip()
        return f"it said: {text}" if text else "it said nothing"
