"""A guest of a test's own: running commands in it, moving files, reaching its ports."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from anyvirt.errors import AnyvirtError, GuestTimeoutError, UsageError
from anyvirt.testing.command import CommandFailedError, CommandHost, RunningCommand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from anyvirt.machines.machine import Machine
    from anyvirt.testing.command import Result

_LOOK = 0.1
"""Seconds between two looks at what is waited for."""
_SHELL = ("/bin/sh", "-c")
_LISTENING = "0A"
_WRITE = 'mkdir -p -- "$(dirname -- "$1")" && cat > "$1" && chmod "$2" "$1"'
_UNPACK = 'mkdir -p -- "$1" && tar -x -f - -C "$1"'


class GuestHost(CommandHost, Protocol):
    """What a guest runs in."""

    def pause(self) -> None:
        """Let it stand still."""

    def resume(self) -> None:
        """Let it go on."""

    def close(self) -> None:
        """End it."""


class FreshGuest:
    """A guest that nobody has used before, and that is thrown away afterwards.

    What concerns files needs a shell with `cat` and `tar` in the guest.
    """

    def __init__(self, engine: str, host: GuestHost, *, machine: Machine | None = None) -> None:
        """`machine` is the whole machine where the engine has one in this process."""
        self.engine = engine
        """The name of the engine that it runs on."""
        self._host = host
        self._machine = machine
        self._background: list[RunningCommand] = []

    # Commands -------------------------------------------------------------------------------------------

    def run(
        self,
        command: Sequence[str],
        *,
        input: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        timeout: float = 60,
    ) -> Result:
        """Run a command to its end, whatever its status is.

        After `timeout` seconds it is killed and GuestTimeoutError raised. Raises CommandNotFoundError and
        NotExecutableError for a command that cannot be started.
        """
        running = self._start(command, input, env, workdir)
        try:
            return running.wait(timeout)
        finally:
            running.close()

    def check(
        self,
        command: Sequence[str],
        *,
        input: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        timeout: float = 60,
    ) -> Result:
        """The same, and CommandFailedError, with all that the command said, for any status but 0."""
        result = self.run(command, input=input, env=env, workdir=workdir, timeout=timeout)
        if not result.succeeded:
            raise CommandFailedError(self.engine, result)
        return result

    def shell(self, script: str, *, timeout: float = 60) -> str:
        """Run a script by the guest's /bin/sh, which must succeed, and return its standard output."""
        return self.check((*_SHELL, script), timeout=timeout).stdout

    def start(
        self,
        command: Sequence[str],
        *,
        input: str | bytes = b"",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> RunningCommand:
        """Start a command and let it run, a server for example; at the latest it ends with the guest."""
        running = self._start(command, input, env, workdir)
        self._background.append(running)
        return running

    def _start(
        self,
        command: Sequence[str],
        input: str | bytes,
        env: Mapping[str, str] | None,
        workdir: str | None,
    ) -> RunningCommand:
        if isinstance(command, str | bytes):
            raise UsageError(
                "a command is a sequence of words, not one string: write ['ls', '-l'], or use shell()"
            )
        data = input.encode() if isinstance(input, str) else input
        words = tuple(os.fspath(word) for word in command)
        return RunningCommand(self._host, words, input=data, env=env, workdir=workdir)

    def wait_until(self, command: Sequence[str], *, timeout: float = 60) -> Result:
        """Run a command again and again until it succeeds. GuestTimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not (result := self.run(command, timeout=timeout)).succeeded:
            if time.monotonic() >= deadline:
                error = CommandFailedError(self.engine, result)
                raise GuestTimeoutError(f"still after {timeout:g} seconds, {error}")
            time.sleep(_LOOK)
        return result

    # Files ----------------------------------------------------------------------------------------------

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file, and make the directories that it is in."""
        self.check((*_SHELL, _WRITE, "sh", path, f"{mode:o}"), input=content)

    def read(self, path: str) -> bytes:
        """The content of a file."""
        return self.check((*_SHELL, 'cat -- "$1"', "sh", path)).raw_stdout

    def put(self, source: Path | str, target: str) -> None:
        """Copy a file of the host's, or the content of a directory, to a path in the guest."""
        source = Path(source)
        if not source.is_dir():
            self.write(target, source.read_bytes(), mode=source.stat().st_mode & 0o7777)
            return
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(source, ".", filter=_as_root)
        self.check((*_SHELL, _UNPACK, "sh", target), input=archive.getvalue())

    def get(self, source: str, target: Path | str) -> None:
        """Copy a file of the guest's, or the content of a directory, to a path on the host.

        What is neither a file nor a directory nor a link inside is refused: guests are hostile.
        """
        target = Path(target)
        if not self.run((*_SHELL, 'test -d "$1"', "sh", source)).succeeded:
            target.write_bytes(self.read(source))
            return
        archive = self.check((*_SHELL, 'tar -c -f - -C "$1" .', "sh", source)).raw_stdout
        target.mkdir(parents=True, exist_ok=True)
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(target, filter="data")
        except tarfile.TarError as error:
            raise AnyvirtError(f"what the guest has at {source} cannot be copied: {error}") from None

    # Ports ----------------------------------------------------------------------------------------------

    def wait_for_port(self, port: int, *, timeout: float = 60) -> None:
        """Wait until something in the guest listens on a TCP port. GuestTimeoutError after `timeout` seconds.

        Nothing connects to it: it is read from /proc/net (proc_pid_net(5)).
        """
        deadline = time.monotonic() + timeout
        while port not in self.listening_ports():
            if time.monotonic() >= deadline:
                raise GuestTimeoutError(
                    f"nothing listened on port {port} of the {self.engine} guest after {timeout:g} seconds"
                )
            time.sleep(_LOOK)

    def listening_ports(self) -> frozenset[int]:
        """The TCP ports on which something in the guest listens."""
        table = self.run((*_SHELL, "cat /proc/net/tcp /proc/net/tcp6")).stdout
        rows = [line.split() for line in table.splitlines()]
        found = [row[1].rpartition(":")[2] for row in rows if len(row) > 3 and row[3] == _LISTENING]
        return frozenset(int(port, 16) for port in found)

    # The machine ----------------------------------------------------------------------------------------

    @property
    def machine(self) -> Machine:
        """The whole machine: its CPUs, memory and devices. Look at it while it is paused.

        Raises UsageError where there is none.
        """
        if self._machine is None:
            raise UsageError(f"a guest of engine {self.engine} has no machine: it runs on the host's kernel")
        return self._machine

    @property
    def console(self) -> str:
        """What the guest's kernel has printed; nothing where it is the host's."""
        return self._machine.console.text if self._machine is not None else ""

    def pause(self) -> None:
        """Let the guest stand still, with its clock if it has one of its own."""
        self._host.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._host.resume()

    def close(self) -> None:
        """End it, and whatever runs in it. Idempotent."""
        self._host.close()
        for command in self._background:
            command.close()
        self._background.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
