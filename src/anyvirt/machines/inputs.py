"""What comes from outside into a machine: when it comes, and that it comes again in the same way.

In a counted run it comes between two steps of the machine, so that the place where it came is known: after so
many instructions and leaps of time. A log of it is all that is needed to let the machine do the same again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.machines.settling import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec

    from anyvirt.machines.machine import Machine

    P = ParamSpec("P")

_SETTLE = "settle"
NEVER = 1 << 62
"""More instructions than anybody waits for."""


class ReplayError(AnyvirtError):
    """A machine does not do again what it did: something from outside is not in the log."""


class Position(NamedTuple):
    """Where a machine is in its counted execution."""

    instructions: int
    """Executed by all harts together."""
    leaps: int
    """How often time has leapt because all harts waited."""


class Event(NamedTuple):
    """Something that has come, or an answer that was asked for."""

    position: Position
    name: str
    """Who receives it, or who has asked."""
    data: bytes
    is_answer: bool = False


@dataclass
class Log:
    """Everything from outside since a state of the machine."""

    start: Position
    events: list[Event] = field(default_factory=list)
    """What has come, by ascending positions."""
    answers: dict[str, list[bytes]] = field(default_factory=dict)
    """What was answered, by who has asked."""


class Place(NamedTuple):
    """How much of a log has happened."""

    events: int
    answers: dict[str, int]


class Inputs:
    """Of one machine: `machine.inputs`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._receivers: dict[str, Callable[[bytes], object]] = {_SETTLE: lambda _: settle(machine)}
        self._waiting: deque[tuple[str, bytes]] = deque()
        self.log: Log | None = None
        """What is kept, if anything is: of a recording, or of a history."""
        self._next = 0
        """The first event of the log that is still to come."""
        self._asked: dict[str, int] = {}
        self.listeners: list[Callable[[Event], object]] = []
        """Called with everything new."""
        self.on_settled: Callable[[], object] | None = None
        """Called when the machine is settled: it can be gone on from here."""
        self.on_given_up: Callable[[], object] | None = None
        """Called when what the log has behind here will not come."""
        self._every = NEVER
        self._settled_at = 0
        self._fixed_until = Position(0, 0)
        """Before this nothing comes that is not in the log."""

    # For whoever has input ------------------------------------------------------------------------------

    def receive(self, name: str, receiver: Callable[[bytes], object]) -> None:
        """Have what is pushed by a name given to a function, which is called under the machine's lock.

        Raises UsageError if somebody receives that already.
        """
        if name in self._receivers:
            raise UsageError(f"what is pushed for {name} is received already")
        self._receivers[name] = receiver

    def push(self, name: str, data: bytes) -> None:
        """Something comes, now or between two steps. Any thread may call this, devices and hooks too.

        Raises UsageError if nobody receives it.
        """
        if name not in self._receivers:
            raise UsageError(f"nobody receives what is pushed for {name}")
        with self._machine.lock:
            self._waiting.append((name, data))
            run = self._machine.counted_run
            if run is None:
                self._take_waiting()
                return
        run.notice_input()

    def pull(self, name: str, source: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs) -> bytes:
        """What a function of the host answers, now and whenever the same is done again."""
        if self.log is None:
            return source(*args, **kwargs)
        answers, asked = self.log.answers.setdefault(name, []), self._asked.get(name, 0)
        if asked == len(answers):
            self._give_up_future()
            answers.append(source(*args, **kwargs))
            self._tell(Event(self._machine.position, name, answers[-1], is_answer=True))
        self._asked[name] = asked + 1
        return answers[asked]

    # For counted runs -----------------------------------------------------------------------------------

    def arrive(self) -> None:
        """Let everything come that comes here: what waits, and what has come here before."""
        machine = self._machine
        if self._waiting:
            self._take_waiting()
            for hart in machine.harts:
                hart.cpu.forget_interrupt()
        if self.log is not None:
            self._repeat(self.log)
            if not self.has_future and machine.position.instructions >= self._settled_at + self._every:
                self.settle()

    def arrive_late(self) -> None:
        """Let come what has come too late for the run that has ended."""
        self._take_waiting()

    def _take_waiting(self) -> None:
        with self._machine.lock:
            while self._waiting:
                self._happen(*self._waiting.popleft())

    def _repeat(self, log: Log) -> None:
        here = self._machine.position
        while self._next < len(log.events) and log.events[self._next].position == here:
            event = log.events[self._next]
            self._next += 1
            with self._machine.lock:
                self._deliver(event.name, event.data)

    def settle(self) -> None:
        """Let the machine be as one that goes on from its state; that is an event like others."""
        with self._machine.lock:
            self._happen(_SETTLE, b"")

    def _deliver(self, name: str, data: bytes) -> None:
        if name not in self._receivers:
            raise ReplayError(f"something came for {name}, which the machine does not have")
        self._receivers[name](data)
        # What is due at once is so before anything else comes here.
        self._machine.clock.ring_due()
        if name == _SETTLE:
            self._settled_at = self._machine.position.instructions
            if self.on_settled is not None:
                self.on_settled()

    def instructions_to_next(self) -> int:
        """How many instructions may be executed until something comes or somebody wants to look."""
        if self.log is None:
            return NEVER
        here = self._machine.position
        if self._next < len(self.log.events):
            return self.log.events[self._next].position.instructions - here.instructions
        if here < self._fixed_until:
            return self._fixed_until.instructions - here.instructions or NEVER
        return self._settled_at + self._every - here.instructions

    def _happen(self, name: str, data: bytes) -> None:
        """Something new comes; the machine's lock is held."""
        if self.log is not None:
            self._give_up_future()
            event = Event(self._machine.position, name, data)
            self.log.events.append(event)
            self._next += 1
            self._tell(event)
        self._deliver(name, data)

    def _tell(self, event: Event) -> None:
        for listener in self.listeners:
            listener(event)

    # For recordings and histories -----------------------------------------------------------------------

    def keep(self, every: int) -> Log:
        """The log, from here on if there was none; the machine is settled after so many instructions each."""
        if self.log is None:
            self.log = Log(self._machine.position)
            self._next, self._asked = 0, {}
        self._every = min(every, self._every)
        return self.log

    def forget(self) -> None:
        """Keep no log any more."""
        self.log, self.on_settled, self.on_given_up, self._every = None, None, None, NEVER
        self._fixed_until = Position(0, 0)
        self.listeners.clear()

    def repeat(self, log: Log, end: Position) -> None:
        """Let the same come as in a log, of which nothing has happened yet; it says all up to `end`."""
        self._fixed_until = end
        self.log, self._next, self._asked = log, 0, {}
        self._settled_at, self._every = self._machine.position.instructions, NEVER

    @property
    def place(self) -> Place:
        """How much of the log has happened."""
        return Place(self._next, dict(self._asked))

    def go_back(self, place: Place) -> None:
        """Let what has come behind a place come again."""
        assert self.log is not None
        self._next, self._asked = place.events, dict(place.answers)
        self._settled_at = self._machine.position.instructions

    @property
    def has_future(self) -> bool:
        """Whether the log says what comes next."""
        if self.log is None:
            return False
        return self._next < len(self.log.events) or self._machine.position < self._fixed_until

    def _give_up_future(self) -> None:
        """Something else comes than what has come here before: what was to come then does not."""
        assert self.log is not None
        if not self.has_future and all(
            self._asked.get(name, 0) == len(answers) for name, answers in self.log.answers.items()
        ):
            return
        del self.log.events[self._next :]
        self._fixed_until = Position(0, 0)
        for name, answers in self.log.answers.items():
            del answers[self._asked.get(name, 0) :]
        if self.on_given_up is not None:
            self.on_given_up()

    def require_all_harts(self) -> None:
        """Raises UsageError for a run of some harts only of a machine whose log is kept."""
        if self.log is not None:
            raise UsageError("a machine that is recorded, or has a history, runs with all of its CPUs")

    def require_counting(self) -> None:
        """Raises UsageError for a run in real time of a machine whose log is kept."""
        if self.log is not None:
            raise UsageError(
                "a machine that is recorded, or has a history, runs by counted instructions: say how many"
            )
