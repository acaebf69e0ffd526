"""Taking turns: each turn measures every engine once, in a rotating order, so that drift hits all alike."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyvirt.compare.results import Cell, Measured, Unmeasured, percentile, ratios
from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anyvirt.engines.engine import Engine


@dataclass(frozen=True)
class Budget:
    """How many samples of each engine to take: `most`, but after `seconds` of one engine's only `least`.

    After `patience` seconds one is enough: of engines that boot a kernel for each.
    """

    most: int
    least: int = 3
    seconds: float = float("inf")
    patience: float = float("inf")

    def exhausted(self, taken: int, spent: float) -> bool:
        """Whether no further sample should be taken."""
        if taken >= self.most or (taken >= self.least and spent >= self.seconds):
            return True
        return taken >= 1 and spent >= self.patience


@dataclass
class _Series:
    """The samples of one engine."""

    samples: list[float] = field(default_factory=list)
    spent: float = 0.0
    failure: str | None = None


def take_turns(
    engines: Sequence[Engine],
    sample: Callable[[Engine], float],
    budget: Budget,
    *,
    step: Callable[[Engine], None] = lambda _: None,
) -> dict[str, tuple[float, ...] | str]:
    """The samples of each engine, or the reason why it could not be measured, by the engine's name.

    An engine whose `sample` raises an AnyvirtError is not asked again. `step` is called before each sample.
    """
    series = {engine.name: _Series() for engine in engines}
    turn = 0
    while waiting := [engine for engine in engines if _wants_more(series[engine.name], budget)]:
        offset = turn % len(waiting)
        for engine in waiting[offset:] + waiting[:offset]:
            step(engine)
            _take(series[engine.name], engine, sample)
        turn += 1
    return {name: one.failure or tuple(one.samples) for name, one in series.items()}


def _wants_more(series: _Series, budget: Budget) -> bool:
    return series.failure is None and not budget.exhausted(len(series.samples), series.spent)


def _take(series: _Series, engine: Engine, sample: Callable[[Engine], float]) -> None:
    began = time.perf_counter()
    try:
        series.samples.append(sample(engine))
    except AnyvirtError as error:
        series.failure = str(error)
    series.spent += time.perf_counter() - began


def cells(
    taken: Mapping[str, tuple[float, ...] | str],
    baseline: str | None,
    *,
    rounds: Mapping[str, int] | None = None,
    paired: bool = True,
) -> dict[str, Cell]:
    """The cells of a row from what `take_turns` returned.

    Ratios relate each sample to the baseline's of the same turn or, unless `paired`, to the baseline's
    median: for what does not drift but may be smaller than the noise.
    """
    base = taken.get(baseline or "")
    if isinstance(base, tuple) and not paired:
        base = (percentile(base, 50),) * max(map(len, taken.values()))
    made: dict[str, Cell] = {}
    for name, samples in taken.items():
        if isinstance(samples, str):
            made[name] = Unmeasured(samples)
            continue
        related = ratios(samples, base) if isinstance(base, tuple) and name != baseline else ()
        made[name] = Measured(samples, related, rounds.get(name) if rounds else None)
    return made
