"""Turns: who is measured when, how often, and what becomes of those that fail."""

import pytest

from anyvirt.compare import turns
from anyvirt.compare.results import Measured, Unmeasured
from anyvirt.compare.turns import Budget, cells, take_turns
from anyvirt.errors import UsageError

from .conftest import FakeEngine

ENGINES = [FakeEngine(name) for name in "abc"]


def test_every_engine_is_first_in_turn():
    order = []
    take_turns(ENGINES, lambda engine: order.append(engine.name) or 1.0, Budget(most=4))
    assert "".join(order) == "abcbcacababc"


def test_steps_are_told_before_samples():
    told = []
    take_turns(
        ENGINES[:1],
        lambda engine: told.append("sample") or 1.0,
        Budget(most=2),
        step=lambda engine: told.append(engine.name),
    )
    assert told == ["a", "sample", "a", "sample"]


def test_an_engine_that_fails_is_not_asked_again():
    asked = []

    def sample(engine):
        asked.append(engine.name)
        if engine.name == "b":
            raise UsageError("it broke")
        return float(len(asked))

    taken = take_turns(ENGINES, sample, Budget(most=3))
    assert asked.count("b") == 1
    assert taken["b"] == "it broke"
    assert len(taken["a"]) == len(taken["c"]) == 3


def test_mistakes_in_the_code_are_not_hidden_in_cells():
    with pytest.raises(ZeroDivisionError):
        take_turns(ENGINES, lambda engine: 1 / 0, Budget(most=1))


def test_a_slow_engine_gets_fewer_samples_but_the_least(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(turns.time, "perf_counter", lambda: now[0])

    def sample(engine):
        now[0] += 5.0 if engine.name == "b" else 0.1
        return 1.0

    taken = take_turns(ENGINES[:2], sample, Budget(most=10, least=2, seconds=3.0))
    assert (len(taken["a"]), len(taken["b"])) == (10, 2)
    taken = take_turns(ENGINES[:2], sample, Budget(most=10, least=6, seconds=3.0, patience=9.0))
    assert (len(taken["a"]), len(taken["b"])) == (10, 2)
    taken = take_turns(ENGINES[:2], sample, Budget(most=10, least=6, seconds=3.0, patience=0.0))
    assert (len(taken["a"]), len(taken["b"])) == (1, 1)


def test_cells_relate_to_the_baseline():
    made = cells({"a": (1.0, 2.0), "b": (3.0, 8.0), "c": "no reason"}, "a", rounds={"a": 10, "b": 5})
    assert made == {
        "a": Measured((1.0, 2.0), (), 10),
        "b": Measured((3.0, 8.0), (3.0, 4.0), 5),
        "c": Unmeasured("no reason"),
    }


def test_unpaired_cells_relate_to_the_baseline_median():
    made = cells({"a": (-1.0, 2.0, 2.0), "b": (3.0, 8.0, 1.0, 4.0)}, "a", paired=False)
    assert made["b"].ratios == (1.5, 4.0, 0.5, 2.0)


def test_without_a_baseline_there_are_no_ratios():
    assert cells({"b": (3.0,)}, "a")["b"].ratios == ()
    assert cells({"a": "broken", "b": (3.0,)}, "a", paired=False)["b"].ratios == ()
