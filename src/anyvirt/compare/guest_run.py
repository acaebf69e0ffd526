"""One run of a guest, watched from outside: when its output arrives, how it ends; bounded in time and size.

The guest's own clock is not asked: it may lie. Whatever it writes is read at once, so that it never waits for
us, and thrown away beyond a bound.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.errors import AnyvirtError
from anyvirt.instance import ExitStatus, Streams, Usage
from anyvirt.quantities import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.compare.booted import RunningGuest, Starter
    from anyvirt.guest import Guest

_CHUNK = 1 << 16
KEPT = 1 << 12
"""Bytes of each output that are kept."""
_ASKING = 0.005
"""Seconds between two questions whether a guest has ended that nothing else tells of."""
_GRACE = 1.0
"""Most seconds spent reading after the guest's end: a process that it left behind may still write."""


class MeasurementError(AnyvirtError):
    """A guest could not be measured; the message says why, as the reason in a cell."""


@dataclass(frozen=True)
class GuestRun:
    """A finished run. Times are seconds since the request to start."""

    released: float | None
    """When the guest, after its first output, was told to go on; None where that was not asked for."""
    last_output: float | None
    """When the last bytes on standard output arrived."""
    ended: float
    """When the end was known."""
    status: ExitStatus
    usage: Usage
    stdout: bytes
    """The beginning of the output."""
    stdout_size: int
    stderr: bytes

    def complaint(self) -> str:
        """How the guest ended, with the last line of its error output if there is one."""
        return complaint(str(self.status), self.stderr)


def complaint(end: str, errors: bytes) -> str:
    """How something ended, with the last line that it wrote to its error output if it wrote any."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return f"{end}: {printable(lines[-1]).removeprefix('anyvirt: ')}" if lines else end


def printable(text: str) -> str:
    """What a guest said, fit for a terminal and a table: one line, no control characters, not too long."""
    words = " ".join(text.split())[:200]
    return "".join(character if character.isprintable() else "?" for character in words)


@contextmanager
def error_output() -> Iterator[tuple[int, Callable[[], bytes]]]:
    """A file for a guest's error output, and what reads its end."""
    descriptor = os.memfd_create("errors")
    try:
        yield descriptor, lambda: os.pread(descriptor, KEPT, max(0, os.fstat(descriptor).st_size - KEPT))
    finally:
        os.close(descriptor)


def run_guest(
    starter: Starter, guest: Guest, *, timeout: float, output_limit: int = 1 << 26, hold: bool = False
) -> GuestRun:
    """Run `guest` to its end with no input or, with `hold`, one byte as soon as it has written something.

    A guest that waits for that byte does not run ahead while `start` has not yet returned.
    Raises MeasurementError when it runs longer than `timeout` seconds or writes more than `output_limit`
    bytes to one of its outputs: it is killed then. What `start` raises passes through.
    """
    with ExitStack() as stack:
        watch = _Watch(stack, output_limit, hold=hold)
        began = time.perf_counter()
        instance = starter.start(guest, watch.guest_ends)
        stack.callback(instance.close)
        watch.close_guest_ends()
        status = watch.until_end(instance, began, timeout)
        ended = time.perf_counter()
        watch.drain()
        return GuestRun(
            released=watch.released - began if watch.released is not None else None,
            last_output=watch.stdout.last - began if watch.stdout.last is not None else None,
            ended=ended - began,
            status=status,
            usage=instance.usage(),
            stdout=bytes(watch.stdout.kept),
            stdout_size=watch.stdout.size,
            stderr=bytes(watch.stderr.kept),
        )


class _Output:
    """What arrived on one pipe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.kept = bytearray()
        self.size = 0
        self.last: float | None = None

    def add(self, data: bytes) -> None:
        """Take note of data that arrived just now."""
        self.last = time.perf_counter()
        self.kept += data[: KEPT - len(self.kept)]
        self.size += len(data)


class _Watch:
    """The pipes of a guest, and the waiting for its end."""

    def __init__(self, stack: ExitStack, limit: int, *, hold: bool) -> None:
        self.released: float | None = None
        self.stdout, self.stderr = _Output("standard output"), _Output("standard error")
        self._limit = limit
        self._poll = select.poll()
        self._readers: dict[int, _Output] = {}
        self._guest_fds: list[int] = []
        self._release: int | None = None
        stack.callback(self._close)
        stdin = self._input(hold=hold)
        self.guest_ends = Streams(stdin, self._pipe(self.stdout), self._pipe(self.stderr))

    def _input(self, *, hold: bool) -> int:
        if hold:
            reader, self._release = os.pipe()
        else:
            reader = os.open(os.devnull, os.O_RDONLY)
        self._guest_fds.append(reader)
        return reader

    def _pipe(self, output: _Output) -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self._readers[reader] = output
        self._guest_fds.append(writer)
        self._poll.register(reader, select.POLLIN)
        return writer

    def close_guest_ends(self) -> None:
        """Once the guest holds its ends: without this the pipes would never end."""
        while self._guest_fds:
            os.close(self._guest_fds.pop())

    def until_end(self, instance: RunningGuest, began: float, timeout: float) -> ExitStatus:
        """Read until the guest has ended; kill it when it goes beyond a bound."""
        if instance.end_fd is not None:
            self._poll.register(instance.end_fd, select.POLLIN)
        try:
            return self._read_until_end(instance, began + timeout)
        except TimeoutError:
            self._end(instance)
            raise MeasurementError(f"it had not ended after {timeout:g} s and was killed") from None
        except MeasurementError:
            self._end(instance)
            raise

    def _read_until_end(self, instance: RunningGuest, deadline: float) -> ExitStatus:
        """The guest's status; TimeoutError at the deadline. Where no descriptor tells the end, ask for it."""
        while (remaining := deadline - time.perf_counter()) > 0:
            pause = remaining if instance.end_fd is not None else min(remaining, _ASKING)
            for descriptor, _ in self._poll.poll(pause * 1000):
                if descriptor == instance.end_fd:
                    return instance.wait(max(0.0, deadline - time.perf_counter()))
                self._read(descriptor)
            if instance.end_fd is None:
                with suppress(TimeoutError):
                    return instance.wait(0)
        raise TimeoutError

    def _read(self, reader: int) -> bool:
        """Read what is there; False when nothing is."""
        output = self._readers[reader]
        try:
            data = os.read(reader, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._poll.unregister(reader)
            del self._readers[reader]
            os.close(reader)
            return False
        output.add(data)
        if output is self.stdout and self._release is not None:
            self._let_go(self._release)
        if output.size > self._limit:
            raise MeasurementError(
                f"it wrote more than {format_size(self._limit)} to its {output.name} and was killed"
            )
        return True

    def _let_go(self, release: int) -> None:
        self._release = None
        self.released = time.perf_counter()
        with suppress(BrokenPipeError):
            os.write(release, b"\n")
        os.close(release)

    def drain(self) -> None:
        """Read what the guest wrote last. A process that it left behind may hold the pipes open for ever."""
        deadline = time.perf_counter() + _GRACE
        while self._readers and time.perf_counter() < deadline:
            if sum(self._read(reader) for reader in list(self._readers)) == 0:
                break

    @staticmethod
    def _end(instance: RunningGuest) -> None:
        instance.signal(signal.SIGKILL)
        instance.wait()

    def _close(self) -> None:
        self.close_guest_ends()
        if self._release is not None:
            os.close(self._release)
        for reader in self._readers:
            os.close(reader)
