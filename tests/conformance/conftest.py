"""Every capability on every engine that claims it, with a guest that each engine can run."""

import pytest

from anyvirt.engines import engine_names, get


def pytest_generate_tests(metafunc):
    """A test that is marked with capabilities runs once for each engine that claims them all."""
    marker = metafunc.definition.get_closest_marker("capabilities")
    if marker is not None:
        names = [name for name in engine_names() if get(name).capabilities >= set(marker.args)]
        metafunc.parametrize("engine", names, indirect=True)


@pytest.fixture
def engine(request):
    """The engine under test; skipped, with its own reason, where it does not work on this host."""
    engine = get(request.param)
    availability = engine.probe()
    if not availability.available:
        pytest.skip(f"engine {engine.name} is not available: {availability.reason}")
    return engine
