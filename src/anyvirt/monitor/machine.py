"""What the monitor needs of a machine, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anyvirt.agent.protocol import Request
    from anyvirt.agent.streams import ByteStream
    from anyvirt.devices.bus import State


class End(Enum):
    """How a machine ended by itself."""

    OFF = "was turned off"
    RESET = "asked for a reset, as kernels do when they give up"
    FAILURE = "turned itself off for a failure"


@dataclass(frozen=True)
class MountStep:
    """What is asked of the agent for one share: the first way that works."""

    ways: Sequence[Sequence[Request]]
    what: str
    """For an error."""


class MonitoredMachine(Protocol):
    """A machine that is ready to run."""

    @property
    def channel(self) -> ByteStream:
        """The agent's."""

    @property
    def shares(self) -> Sequence[MountStep]:
        """What remains to be done once the agent is there."""

    @property
    def network(self) -> Sequence[Request]:
        """What makes the guest's network what the host says it is; the interface is there."""

    @property
    def conversation(self) -> State | None:
        """What the monitor of the machine has said that this one goes on from; None of a new one."""

    @property
    def is_lasting(self) -> bool:
        """Whether the guest changes anything on the host that has to be in order when it ends."""

    @property
    def is_counted(self) -> bool:
        """Whether it is to be run by `advance`, not by `run`."""

    def run(self, say: Callable[[str], object]) -> End:
        """Run until it ends by itself; `say` shows a line where errors of the main command are shown."""

    def advance(self) -> End | None:
        """Run by counted instructions until its agent has said something, or to its end, which is returned.

        Raises GuestStartError if neither will come.
        """

    @property
    def instructions(self) -> int:
        """How many it has executed."""

    def pause(self) -> None:
        """Let it stand still; returns when it does. Any thread may call it."""

    def resume(self) -> None:
        """Let it go on. Any thread may call it."""

    def snapshot(self, directory: Path, *, compress: bool, conversation: Callable[[], State]) -> None:
        """Write all that it is to a directory, with what is said of its agent while it stands.

        Nothing is sent to the agent meanwhile. Raises AnyvirtError; there is no such directory then.
        """

    def close(self) -> None:
        """Flush and let go of what it has on the host. Nothing runs any more."""

    def console_tail(self) -> str:
        """The last lines that the guest's kernel printed."""
