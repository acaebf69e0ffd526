"""`anyvirt engines`: the list, the matrix, and both as JSON."""

import json
import subprocess

from anyvirt.engines.engine import Capability
from anyvirt.engines.listing import capability_matrix, list_engines, matrix_markdown


def run(anyvirt_command, *words):
    return subprocess.run(
        (*anyvirt_command, "engines", *words), capture_output=True, text=True, check=True
    ).stdout


def test_every_engine_is_listed_with_its_availability(anyvirt_command):
    text = run(anyvirt_command)
    for engine in list_engines():
        assert engine.name in text
        if not engine.available:
            assert engine.reason.split()[0] in text
    assert "native  available" in text


def test_json_has_the_same_and_more(anyvirt_command):
    engines = json.loads(run(anyvirt_command, "--json"))
    assert [engine["name"] for engine in engines] == [engine.name for engine in list_engines()]
    for engine in engines:
        assert engine["available"] or engine["reason"]
        assert set(engine["capabilities"]) <= {capability.value for capability in Capability}


def test_the_matrix_covers_every_capability(anyvirt_command):
    text = run(anyvirt_command, "--matrix")
    assert all(capability.value in text for capability in Capability)
    assert json.loads(run(anyvirt_command, "--matrix", "--json")) == capability_matrix()


def test_an_engine_that_does_not_work_says_why(monkeypatch):
    from anyvirt.engines.engine import Availability
    from anyvirt.engines.native import NativeEngine

    monkeypatch.setattr(
        NativeEngine, "probe", lambda self: Availability(False, reason="no CPU", remedy="buy one")
    )
    native = next(engine for engine in list_engines() if engine.name == "native")
    assert (native.available, native.reason, native.remedy) == (False, "no CPU", "buy one")


def test_the_markdown_matrix_has_a_row_for_each_capability():
    lines = matrix_markdown().splitlines()
    assert len(lines) == 2 + len(Capability)
    assert lines[0] == "| capability | native | container | user | translator | interpreter |"
