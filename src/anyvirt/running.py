"""Running a guest to its end: start it, feed and collect its streams, wait for it, account for it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.engines import get
from anyvirt.engines.selection import choose
from anyvirt.errors import AnyvirtError
from anyvirt.instance import ExitStatus, Streams, Usage
from anyvirt.pipes import GuestPipes

if TYPE_CHECKING:
    from pathlib import Path

    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.instance import Instance, TerminalSize


@dataclass(frozen=True)
class Completed:
    """A guest's run, finished."""

    engine: str
    status: ExitStatus
    seconds: float
    """Wall-clock time from the request to start until the guest's end was known."""
    usage: Usage
    stdout: bytes = b""
    stderr: bytes = b""
    discarded: int = 0
    """Bytes of output beyond the bound that the caller set; they were read and thrown away."""
    instructions: int | None = None
    """How many were executed, where they were counted (a deterministic run)."""

    @property
    def returncode(self) -> int:
        """The status as a shell's `$?`."""
        return self.status.shell


class GuestFailedError(AnyvirtError):
    """A guest that was to be checked ended with another status than 0; `completed` holds its run."""

    def __init__(self, completed: Completed) -> None:
        super().__init__(f"the guest on engine {completed.engine} ended with {completed.status}")
        self.completed = completed
        self.exit_code = completed.returncode


def select_engine(on: str | None, guest: Guest) -> Engine:
    """The engine named `on`, or the lightest that can run `guest`."""
    return get(on) if on is not None else choose(guest).engine


def start_guest(
    guest: Guest,
    *,
    on: str | None = None,
    streams: Streams | None = None,
    terminal: TerminalSize | None = None,
) -> Instance:
    """Start `guest` on the engine named `on`, or on the lightest that can run it. See Engine.start."""
    return select_engine(on, guest).start(guest, streams or Streams(), terminal)


def restore_guest(
    directory: Path,
    *,
    on: str | None = None,
    streams: Streams | None = None,
    terminal: TerminalSize | None = None,
) -> Instance:
    """Start a guest from a snapshot, on the engine named `on` or on that which took it.

    See Engine.restore.
    """
    if on is None:
        from anyvirt.engines.saved_guest import SavedGuest

        on = SavedGuest.read(directory).engine
    return get(on).restore(directory, streams or Streams(), terminal)


def run_guest(
    guest: Guest,
    *,
    on: str | None = None,
    input: bytes | None = None,
    capture_output: bool = False,
    output_limit: int | None = None,
    timeout: float | None = None,
    check: bool = False,
) -> Completed:
    """Run `guest` to its end.

    `input` is what its standard input gives it (None: the caller's own). With `capture_output` its standard
    output and error are collected, of each at most `output_limit` bytes. After `timeout` seconds it is killed
    and GuestTimeoutError raised. With `check`, any status but 0 raises GuestFailedError.
    """
    engine = select_engine(on, guest)
    with ExitStack() as stack:
        pipes = GuestPipes(stack, feed=input, capture=capture_output, limit=output_limit)
        began = time.monotonic()
        instance = stack.enter_context(engine.start(guest, pipes.guest_ends))
        pipes.started(instance.end_fd)
        deadline = None if timeout is None else began + timeout
        try:
            pipes.carry(deadline)
            status = instance.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise instance.kill_late(timeout or 0.0) from None
        completed = Completed(
            engine.name,
            status,
            time.monotonic() - began,
            instance.usage(),
            bytes(pipes.stdout),
            bytes(pipes.stderr),
            pipes.discarded,
            instance.instructions,
        )
    if check and completed.returncode != 0:
        raise GuestFailedError(completed)
    return completed
