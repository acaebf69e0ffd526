"""The choice of an engine: the lightest that can run the guest, with a reason for each one passed over."""

import pytest

from anyvirt.engines import selection
from anyvirt.engines.engine import Architecture, Availability, Capability
from anyvirt.engines.native import NativeEngine
from anyvirt.engines.selection import choose, obstacle
from anyvirt.errors import CommandNotFoundError, NotExecutableError, UsageError
from anyvirt.guest import Guest, Limits, Network


class Light(NativeEngine):
    name = "light"
    architecture = Architecture.OS_LEVEL
    weight = 10
    works = True

    def probe(self):
        return Availability(self.works, reason="" if self.works else "the kernel is too old")


class Heavy(Light):
    name = "heavy"
    weight = 20
    capabilities = frozenset(Capability)


@pytest.fixture
def engines(monkeypatch):
    """A registry of three engines: native, a light one without capabilities, and a heavy one with all."""
    engines = {"heavy": Heavy(), "native": NativeEngine(), "light": Light()}
    monkeypatch.setattr(selection, "engine_names", lambda: tuple(engines))
    monkeypatch.setattr(selection, "get", engines.__getitem__)
    return engines


def test_the_lightest_that_isolates_is_chosen(engines):
    choice = choose(Guest(command=["true"]))
    assert choice.engine.name == "light"
    assert [(v.engine, v.chosen) for v in choice.verdicts] == [("native", False), ("light", True)]
    assert "--on native" in choice.verdicts[0].reason


def test_a_capability_decides(engines):
    choice = choose(Guest(command=["true"], limits=Limits(cpus=2)))
    assert choice.engine.name == "heavy"
    assert "no limits" in choice.verdicts[1].reason


@pytest.mark.parametrize(
    ("network", "lacks"),
    [
        ("none", "--network none (no isolation)"),
        ("user", "--network and --publish (no network)"),
        ("tap", "--network and --publish (no network)"),
    ],
)
def test_a_network_is_a_capability_and_none_is_isolation(engines, network, lacks):
    choice = choose(Guest(command=["true"], network=Network.parse(network)))
    assert choice.engine.name == "heavy"
    assert choice.verdicts[1].reason == f"cannot honour {lacks}"


def test_one_that_does_not_work_here_is_passed_over(engines):
    engines["light"].works = False
    choice = choose(Guest(command=["true"]))
    assert choice.engine.name == "heavy"
    assert "kernel is too old" in choice.verdicts[1].reason


def test_when_none_can_every_reason_is_given(engines, monkeypatch):
    engines["light"].works = engines["heavy"].works = False
    with pytest.raises(UsageError, match=r"light: .*too old; heavy: .*too old"):
        choose(Guest(command=["true"]))
    for engine in engines.values():
        monkeypatch.setattr(type(engine), "refusal", lambda self, program: "wrong CPU")
    with pytest.raises(NotExecutableError, match="no engine can execute true"):
        choose(Guest(command=["true"]))


def test_the_command_s_own_mistakes_come_first(engines):
    with pytest.raises(CommandNotFoundError):
        choose(Guest(command=["no-such-command"]))


def test_a_named_engine_s_obstacle_is_a_sentence_or_none(engines):
    assert obstacle(engines["native"], Guest(command=["true"])) is None
    assert "--hostname" in obstacle(engines["native"], Guest(command=["true"], hostname="x"))
