"""Breakpoints and watchpoints of the monitor's user: numbered, with conditions, on all harts or one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from anyvirt.cpu.watchpoints import AccessKind
from anyvirt.errors import AnyvirtError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.cpu.hooks import Hook
    from anyvirt.machines.debugging.expressions import Expression
    from anyvirt.machines.debugging.monitor import Monitor
    from anyvirt.machines.ending import Ending
    from anyvirt.machines.hart import Hart


class Kind(StrEnum):
    """What a point is for."""

    BREAK = "breakpoint"
    WRITE = "watchpoint"
    READ = "read watchpoint"
    ACCESS = "access watchpoint"


_ACCESSES = {
    Kind.WRITE: AccessKind.WRITE,
    Kind.READ: AccessKind.READ,
    Kind.ACCESS: AccessKind.READ | AccessKind.WRITE,
}
_LARGEST_VALUE = 8
"""Bytes of watched memory that are shown as a number."""


@dataclass(eq=False)
class Point:
    """One point."""

    number: int
    kind: Kind
    address: int
    length: int = 0
    condition: Expression | None = None
    is_temporary: bool = False
    is_enabled: bool = True
    hits: int = 0
    ignored: int = 0
    """Hits that are still to be passed over."""
    value: int | None = None
    """What watched memory held when it was last looked at."""
    hooks: list[Hook] = field(default_factory=list)


class Points:
    """All of them."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._points: dict[int, Point] = {}
        self._next = 1

    def __iter__(self) -> Iterator[Point]:
        return iter(list(self._points.values()))

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, number: int) -> Point:
        """Raises UsageError."""
        if number not in self._points:
            raise UsageError(f"there is no breakpoint or watchpoint {number}")
        return self._points[number]

    def add(
        self,
        kind: Kind,
        address: int,
        *,
        length: int = 0,
        condition: Expression | None = None,
        is_temporary: bool = False,
    ) -> Point:
        """Stop there from now on. Raises UsageError for memory that cannot be watched."""
        point = Point(self._next, kind, address, length, condition, is_temporary)
        self._arm(point)
        self._points[point.number] = point
        self._next += 1
        return point

    def remove(self, point: Point) -> None:
        """Stop there no longer."""
        self._disarm(point)
        self._points.pop(point.number, None)

    def enable(self, point: Point, wanted: bool) -> None:
        """Let it be there, or not for a while."""
        point.is_enabled = wanted
        self._disarm(point)
        if wanted:
            self._arm(point)

    def renew(self) -> None:
        """The machine has other harts than before."""
        for point in self:
            point.hooks.clear()
            if point.is_enabled:
                self._arm(point)

    def _arm(self, point: Point) -> None:
        for hart in self._monitor.machine.harts:
            if point.kind is Kind.BREAK:
                hook = hart.hooks.at(point.address, self._question(point, hart))
                # It is there on the way back, too.
                hook.is_stop = True
                point.hooks.append(hook)
                continue
            try:
                watchpoint = hart.watchpoints.add(point.address, point.length, _ACCESSES[point.kind])
            except ValueError as error:
                self._disarm(point)
                raise UsageError(str(error)) from None
            point.hooks.append(watchpoint)
        point.value = self._watched_value(point, self._monitor.hart)

    def _disarm(self, point: Point) -> None:
        for hook in point.hooks:
            hook.remove()
        point.hooks.clear()

    def look(self) -> None:
        """Memory is another than when it was last looked at, without anything having been stored."""
        for point in self:
            point.value = self._watched_value(point, self._monitor.hart)

    # Stops ----------------------------------------------------------------------------------------------

    def _question(self, point: Point, hart: Hart) -> Any:  # noqa: ANN401 - a hook's function
        """What the hart asks before the instruction at a breakpoint: whether it is to stop."""
        return lambda _cpu, _address: self._counts(point, hart)

    def _counts(self, point: Point, hart: Hart) -> bool:
        """Whether a hit is one that the user wants; conditions that cannot be evaluated are.

        What is passed on the way back is not counted.
        """
        if point.condition is not None:
            try:
                if not point.condition.value(self._monitor.names(hart)):
                    return False
            except AnyvirtError as error:
                self._monitor.show(f"the condition of {point.kind} {point.number}: {error}")
        if self._monitor.is_going_back:
            return True
        point.hits += 1
        if point.ignored:
            point.ignored -= 1
            return False
        return True

    def _point_of(self, ending: Ending) -> Point | None:
        hit = ending.stop.hit if ending.stop is not None else None
        return next((point for point in self if hit in point.hooks), None)

    def stopped(self, ending: Ending) -> str | None:
        """What is to be told of a run that a hook has ended; None if the user does not want to know."""
        point = self._point_of(ending)
        if point is None:
            return None
        if point.kind is not Kind.BREAK:
            return self.watched(ending)
        if point.is_temporary:
            self.remove(point)
        return f"{point.kind} {point.number}"

    def watched(self, ending: Ending) -> str | None:
        """The same, if it was watched memory."""
        point = self._point_of(ending)
        if point is None or point.kind is Kind.BREAK or ending.hart is None or ending.stop is None:
            return None
        hart = self._monitor.machine.harts[ending.hart]
        before, point.value = point.value, self._watched_value(point, hart)
        if not self._counts(point, hart):
            return None
        values = f"{before:#x}" if before is not None else ""
        if point.value is not None and point.value != before:
            values += f" -> {point.value:#x}"
        access = ending.stop.access.name.lower()
        text = f"{point.kind} {point.number}: {access} at {self._monitor.place(ending.stop.address)}"
        return f"{text}: {values.strip()}" if values else text

    @staticmethod
    def _watched_value(point: Point, hart: Hart) -> int | None:
        if point.kind is Kind.BREAK or point.length > _LARGEST_VALUE:
            return None
        try:
            return int.from_bytes(hart.cpu.look(point.address, point.length), "little")
        except (AnyvirtError, OverflowError):
            return None
