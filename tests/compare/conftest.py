"""Engines that misbehave in a known way, built on the native one."""

import pytest

from anyvirt.compare import comparison
from anyvirt.compare.host import HostFacts
from anyvirt.compare.results import (
    Comparison,
    EngineColumn,
    Group,
    Measured,
    Reported,
    Row,
    Unit,
    Unmeasured,
)
from anyvirt.engines.engine import Availability
from anyvirt.engines.native import NativeEngine
from anyvirt.guest import Guest


class FakeEngine(NativeEngine):
    """The native engine under another name, with words put before each command."""

    def __init__(self, name, *, prefix=(), reason="", refusal=None):
        self.name = name
        self._prefix = prefix
        self._reason = reason
        self._refusal = refusal

    def probe(self):
        return Availability(not self._reason, self._reason, "buy another host" if self._reason else "")

    def refusal(self, program):
        return self._refusal or super().refusal(program)

    def create(self, guest, streams, terminal):
        changed = Guest(command=(*self._prefix, *guest.command), env=guest.env, workdir=guest.workdir)
        return super().create(changed, streams, terminal)


@pytest.fixture
def fake_engines(monkeypatch):
    """Registers engines for comparisons, in the order given."""

    def register(*engines):
        found = {engine.name: engine for engine in engines}
        monkeypatch.setattr(comparison, "get", found.__getitem__)
        monkeypatch.setattr(comparison, "engine_names", lambda: tuple(found))

    return register


@pytest.fixture
def sample_comparison():
    """One of everything that a report has to show, with text that would break a careless page."""
    host = HostFacts("A <b>fast</b> CPU", 2, 8 << 30, "6.1", "x86_64", "3.11.7", "0.1.0")
    columns = (
        EngineColumn("native", "the host itself", "none", "natively"),
        EngineColumn("boxes & <i>crates</i>", "a 'box'", "OS-level", "natively"),
        EngineColumn("absent", "not here", "hosted", "translated", reason="no <script>alert(1)</script>"),
    )
    names = [column.name for column in columns]

    def row(name, group, unit, cells, **more):
        return Row(
            name,
            f"the {name}",
            group,
            unit,
            f"about {name} & co",
            dict(zip(names, cells, strict=True)),
            **more,
        )

    absent = Unmeasured("no <script>alert(1)</script>")
    rows = (
        row(
            "cold-start",
            Group.START,
            Unit.SECONDS,
            (Measured((0.05, 0.06, 0.055)), Measured((0.1, 0.12, 0.11), (2.0, 2.0, 2.0)), absent),
            tail=True,
        ),
        row(
            "integer",
            Group.RUN_TIME,
            Unit.SECONDS,
            (
                Measured((1e-5, 1.1e-5, 1.2e-5), rounds=1000),
                Measured((2e-5, 3.3e-5, 1.2e-5), (2.0, 3.0, 1.0), rounds=500),
                absent,
            ),
        ),
        row(
            "idle-pss",
            Group.MEMORY,
            Unit.BYTES,
            (Measured((8192.0, 9000.0)), Measured((2e6, 2.1e6), (244.0, 233.0)), absent),
        ),
        row(
            "exit-status",
            Group.COMMAND,
            Unit.SECONDS,
            (Reported("0"), Reported("3", "the output differs from the baseline's"), absent),
        ),
    )
    return Comparison(
        command=("sh", "-c", "echo '<script>alert(2)</script>'"),
        host=host,
        started="2026-01-02T03:04:05+00:00",
        duration=12.3,
        engines=columns,
        baseline="native",
        rows=rows,
        notes=("absent does not work here: no <script>alert(1)</script>.",),
    )
