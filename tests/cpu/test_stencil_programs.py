"""Random programs with loops and calls, executed by stencils of all of their code: as regions are tested."""

import pytest

from anyvirt.cpu.stencil_executor import StencilExecutor

from . import test_region_programs
from .machines import Machine
from .test_region_programs import *  # noqa: F403


def load(machine, program, start, generator, *, counted):
    """Put a program and a state into a machine and translate from some places of it; they overlap."""
    machine.prepare(start, program.pages)
    entries = generator.sample(program.leaders, k=min(4, len(program.leaders)))
    assert machine.cpu.translate_now(entries, counted=counted)


@pytest.fixture(scope="module", params=["flat", "machine"])
def machine(request):
    return Machine(StencilExecutor, memory=request.param)


@pytest.fixture(autouse=True)
def _translate_by_stencils(monkeypatch):
    monkeypatch.setattr(test_region_programs, "load", load)
