"""Recordings of machines in directories: a snapshot of the beginning, and all that came from outside since.

`start` is a snapshot. `inputs.jsonl` has a line for what the recording is, one for each event as it comes,
and one for the end, with sums of the lines before it and of the state that the machine came to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyvirt.errors import UsageError
from anyvirt.machines.inputs import Event, Log, Position
from anyvirt.machines.snapshot import SnapshotError
from anyvirt.machines.state import save_machine

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from anyvirt.machines.machine import Machine

START, INPUTS = "start", "inputs.jsonl"
FORMAT, VERSION = "anyvirt recording", 1
_TLB_FILES, _TLB_STATES = ("spaces", "large"), ("next_space", "walk_fault")
"""What a hart knows of its TLBs, which differs between tiers and is no guest's business."""


@dataclass(frozen=True)
class Replay:
    """What is done again, and where it ends."""

    log: Log
    end: Position
    digest: str
    """Of the state there."""


class Recording:
    """A recording that is being made; it ends with `close`, or with its `with` block."""

    def __init__(self, machine: Machine, directory: Path, *, every: int) -> None:
        """The machine stands. Raises UsageError."""
        if machine.inputs.has_future:
            raise UsageError("what is done again cannot be recorded: go to its end, or type something new")
        self._machine = machine
        self._path = directory / INPUTS
        try:
            directory.mkdir(mode=0o700)
        except OSError as error:
            raise UsageError(f"the recording {directory} cannot be made: {error.strerror}") from None
        self._kept_before = machine.inputs.log is not None
        self._sum = hashlib.sha256()
        try:
            machine.inputs.keep(every)
            machine.inputs.settle()
            machine.snapshot(directory / START)
            self._file = open(self._path, "xb")  # noqa: SIM115 - until `close`
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            self._stop_keeping()
            raise
        self._write({"format": FORMAT, "version": VERSION, "position": machine.position})
        machine.inputs.listeners.append(self._note)

    def close(self) -> None:
        """End it here; a run by another thread is held. Closing twice does nothing."""
        if not self._file.closed:
            self._machine.while_standing(self._end)

    def _end(self) -> None:
        machine = self._machine
        machine.inputs.listeners.remove(self._note)
        end = {"end": machine.position, "state": state_digest(machine), "lines": self._sum.hexdigest()}
        self._write(end)
        os.fsync(self._file.fileno())
        self._file.close()
        self._stop_keeping()

    def _stop_keeping(self) -> None:
        inputs = self._machine.inputs
        if not self._kept_before and self._machine.history is None and not inputs.listeners:
            inputs.forget()

    def _note(self, event: Event) -> None:
        self._write(
            {
                "at": event.position,
                "answer" if event.is_answer else "input": event.name,
                "data": base64.b64encode(event.data).decode(),
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        self._sum.update(data)
        self._file.write(data)
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def state_digest(machine: Machine) -> str:
    """A sum of all that a guest could ever notice of the machine's state."""
    state = save_machine(machine)
    for hart in state["harts"]:
        for name in _TLB_FILES:
            del hart["cpu"]["files"][name]
        for name in _TLB_STATES:
            del hart["cpu"]["scalars"][name]
    # How far `expect` is, is not the guest's.
    del state["console"]["matched"]
    digest = hashlib.sha256(json.dumps(state, sort_keys=True, default=bytes.hex).encode())
    memory = machine.board.memory
    for address, length, _ in memory.stretches():
        digest.update(b"%d %d\n" % (address, length))
        digest.update(memory.read(address, length))
    return digest.hexdigest()


def read_recording(directory: Path) -> Replay:
    """What is in a recording besides its snapshot. Raises UsageError and SnapshotError."""
    path = directory / INPUTS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UsageError(f"the recording {directory} cannot be read: {error.strerror}") from None
    try:
        return _parse(lines)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        reason = f"a line of {INPUTS} lacks {error}" if isinstance(error, KeyError) else str(error)
        raise SnapshotError(f"the recording {directory} is damaged: {reason}") from None


def _parse(lines: list[bytes]) -> Replay:
    if not lines:
        raise ValueError(f"{INPUTS} is empty")
    first, *rest = [json.loads(line) for line in lines]
    if first["format"] != FORMAT or first["version"] != VERSION:
        raise ValueError(f"{INPUTS} is not one of version {VERSION}")
    if not rest or "end" not in rest[-1] or not lines[-1].endswith(b"\n"):
        raise ValueError("it was not ended")
    end = rest.pop()
    if end["lines"] != hashlib.sha256(b"".join(lines[:-1])).hexdigest() or end.keys() != {
        "end",
        "state",
        "lines",
    }:
        raise ValueError(f"{INPUTS} is not what was written")
    log = Log(_position(first["position"]))
    for line in rest:
        data = base64.b64decode(line["data"], validate=True)
        if "answer" in line:
            log.answers.setdefault(str(line["answer"]), []).append(data)
        else:
            log.events.append(Event(_position(line["at"]), str(line["input"]), data))
    return Replay(log, _position(end["end"]), str(end["state"]))


def _position(value: list[int]) -> Position:
    instructions, leaps = map(int, value)
    return Position(instructions, leaps)
