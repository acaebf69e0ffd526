"""The pytest plugin: a fresh Linux for each test, as a container or as a whole machine.

pytest finds it by itself where anyvirt is installed (entry point `pytest11`). Everything but the names of
options, marker and fixtures is imported when a test asks for a fixture, so other projects pay nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    from _pytest.nodes import Node

    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest
    from anyvirt.machines.machine import Machine
    from anyvirt.testing.guest import FreshGuest
    from anyvirt.testing.maker import GuestMaker

_Made = TypeVar("_Made")
_MARKER = "anyvirt"
_MARKER_LINE = (
    f"{_MARKER}(engines=[...], rootfs=DIR, memory='512M', cpus=1, kernel=FILE, initrd=FILE, append='', "
    "env={}, workdir=DIR, hostname=NAME, mounts=['SRC:DST']): what the fixtures of anyvirt make for a test"
)
_PER_ENGINE = ("rootfs", "kernel", "initrd")
"""Arguments that may be a mapping from the names of engines to values."""
_ARGUMENTS = frozenset(
    ("engines", "memory", "cpus", "append", "env", "workdir", "hostname", "mounts", *_PER_ENGINE),
)
_ENGINE_FIXTURE = "anyvirt_engine"
_MACHINE_ENGINE = "translator"
_CONSOLE_LINES = 40
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")

_CONSOLES = pytest.StashKey[list[tuple[str, Any]]]()
"""Of a test: what its guests are called, and objects with their consoles."""


# Options and marker -------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; the same are settings of pytest's configuration file."""
    group = parser.getgroup("anyvirt", "fresh Linux guests")
    group.addoption(
        "--anyvirt-engines",
        metavar="NAMES",
        help="Engines that the fixture `guest` is made on, such as container,translator "
        "(default: all that isolate).",
    )
    group.addoption(
        "--anyvirt-boot",
        action="store_true",
        help="Boot machines anew instead of going on from kept snapshots.",
    )
    parser.addini("anyvirt_engines", "As --anyvirt-engines.", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known. Raises pytest.UsageError for engines that there are not."""
    config.addinivalue_line("markers", _MARKER_LINE)
    unknown = _unknown(_asked_engines(config))
    if unknown:
        raise pytest.UsageError(unknown)


def _marked(node: Node) -> dict[str, Any]:
    """The marker's arguments, those of a function above those of its class and module."""
    arguments: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers(_MARKER))):
        if marker.args or not marker.kwargs.keys() <= _ARGUMENTS:
            wrong = [repr(value) for value in marker.args] + sorted(marker.kwargs.keys() - _ARGUMENTS)
            pytest.fail(
                f"the marker {_MARKER} of {node.nodeid} has no argument {', '.join(wrong)}: "
                f"its arguments are {', '.join(sorted(_ARGUMENTS))}, by name",
                pytrace=False,
            )
        arguments |= marker.kwargs
    return arguments


def _asked_engines(config: pytest.Config) -> list[str]:
    """The engines that whoever runs the tests wants; none where that was not said."""
    option = config.getoption("--anyvirt-engines")
    return option.replace(",", " ").split() if option else list(config.getini("anyvirt_engines"))


def _unknown(names: Sequence[str]) -> str:
    """What is wrong with names of engines."""
    if not names:
        return ""
    from anyvirt.engines import engine_names

    unknown = next((name for name in names if name not in engine_names()), None)
    return f"there is no engine {unknown!r}: the engines are {', '.join(engine_names())}" if unknown else ""


def _engines_of(config: pytest.Config, marked: Mapping[str, Any]) -> list[str]:
    """The names of the engines for a test: what it says itself, else what the run says, else the usual."""
    asked = _asked_engines(config)
    if "engines" not in marked:
        return asked or _usual_engines()
    own = list(marked["engines"])
    if unknown := _unknown(own):
        pytest.fail(unknown, pytrace=False)
    # Who runs the tests may leave engines out, not let a test run where it is not made for.
    return [name for name in own if not asked or name in asked]


def _usual_engines() -> list[str]:
    """All that can give a test a Linux of its own."""
    from anyvirt.engines import engine_names, get
    from anyvirt.engines.engine import Capability

    needed = {Capability.EXEC, Capability.ISOLATION}
    return [name for name in engine_names() if get(name).capabilities >= needed]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the fixture `guest` runs once on each engine."""
    if _ENGINE_FIXTURE in metafunc.fixturenames:
        names = _engines_of(metafunc.config, _marked(metafunc.definition))
        metafunc.parametrize(_ENGINE_FIXTURE, names, indirect=True)


# Fixtures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def anyvirt_guests(pytestconfig: pytest.Config) -> Iterator[GuestMaker]:
    """Makes guests and machines: for fixtures of your own, of any scope."""
    from anyvirt.testing.maker import GuestMaker

    with GuestMaker(use_kept=not pytestconfig.getoption("--anyvirt-boot")) as maker:
        yield maker


@pytest.fixture
def anyvirt_engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine that `guest` is made on; the test runs once for each."""
    if not hasattr(request, "param"):
        pytest.fail(
            f"{request.node.nodeid} asks for the fixture `guest` while it runs: it has to be an argument",
            pytrace=False,
        )
    return str(request.param)


@pytest.fixture
def guest(
    request: pytest.FixtureRequest, anyvirt_engine: str, anyvirt_guests: GuestMaker
) -> Iterator[FreshGuest]:
    """A fresh Linux on each engine that works here, thrown away after the test."""
    yield from _fresh_guest(request, anyvirt_engine, anyvirt_guests)


@pytest.fixture
def container(request: pytest.FixtureRequest, anyvirt_guests: GuestMaker) -> Iterator[FreshGuest]:
    """A fresh container, thrown away after the test."""
    yield from _fresh_guest(request, "container", anyvirt_guests)


@pytest.fixture
def machine(request: pytest.FixtureRequest, anyvirt_guests: GuestMaker) -> Iterator[Machine]:
    """A fresh `anyvirt.Machine` that has booted to a shell on its console, and stands still there."""
    from anyvirt.engines.machine_engine import MachineEngine

    marked = _marked(request.node)
    names = _engines_of(request.config, marked) if "engines" in marked else [_MACHINE_ENGINE]
    engine = next((found for found in map(_engine, names) if isinstance(found, MachineEngine)), None)
    if engine is None:
        pytest.skip(f"no engine of whole machines is among {', '.join(names) or 'those asked for'}")
    wanted = _wanted(request, engine, marked)
    with ExitStack() as stack:
        made = _or_fail(lambda: stack.enter_context(anyvirt_guests.machine(engine, wanted)))
        _show_console(request.node, "machine", made)
        yield made


def _fresh_guest(
    request: pytest.FixtureRequest, name: str, maker: GuestMaker
) -> Generator[FreshGuest, None, None]:
    engine = _engine(name)
    wanted = _wanted(request, engine, _marked(request.node))
    made = _or_fail(lambda: maker.guest(engine, wanted))
    _show_console(request.node, f"{name} guest", made)
    with made:
        yield made


def _engine(name: str) -> Engine:
    from anyvirt.engines import get

    return get(name)


def _or_fail(make: Callable[[], _Made]) -> _Made:
    """What is made, or a failure of the test in one sentence."""
    from anyvirt.errors import AnyvirtError

    try:
        return make()
    except AnyvirtError as error:
        pytest.fail(str(error), pytrace=False)


def _wanted(request: pytest.FixtureRequest, engine: Engine, marked: Mapping[str, Any]) -> Guest:
    """The guest that a test has asked for; the test is skipped where the engine cannot be had."""
    wanted = _or_fail(lambda: _guest_of(request.config.rootpath, engine, marked))
    lacks = next((capability for capability, _ in engine.missing(wanted)), None)
    if lacks is not None and "engines" not in marked:
        pytest.skip(f"engine {engine.name} has no {lacks}")
    availability = engine.probe_for(wanted)
    if not availability.available:
        pytest.skip(f"engine {engine.name} is not available here: {availability.reason}")
    _or_fail(lambda: engine.check(wanted))
    return wanted


def _guest_of(root: Path, engine: Engine, marked: Mapping[str, Any]) -> Guest:
    """Paths are relative to pytest's root directory."""
    from anyvirt.guest import Guest, Mount, make_limits

    paths = {name: _path(root, marked.get(name), engine.name) for name in _PER_ENGINE}
    mounts = marked.get("mounts", ())
    return Guest(
        rootfs=paths["rootfs"],
        kernel=paths["kernel"],
        initrd=paths["initrd"],
        append=marked.get("append", ""),
        env=marked.get("env", {}),
        workdir=marked.get("workdir"),
        hostname=marked.get("hostname"),
        limits=make_limits(memory=marked.get("memory"), cpus=marked.get("cpus")),
        mounts=tuple(mount if isinstance(mount, Mount) else Mount.parse(mount) for mount in mounts),
    )


def _path(root: Path, value: str | Path | Mapping[str, str | Path] | None, engine: str) -> Path | None:
    given = value.get(engine) if isinstance(value, Mapping) else value
    return root / given if given is not None else None


# Reports ------------------------------------------------------------------------------------------------


def _show_console(node: pytest.Item, title: str, owner: FreshGuest | Machine) -> None:
    node.stash.setdefault(_CONSOLES, []).append((title, owner))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the end of each console of a test that has failed into its report."""
    report = yield
    if report.when == "call" and report.failed:
        for title, owner in item.stash.get(_CONSOLES, []):
            tail = _tail(owner.console if isinstance(owner.console, str) else owner.console.text)
            if tail:
                report.sections.append((f"Console of the {title}", tail))
    return report


def _tail(text: str) -> str:
    """The last lines of what a console shows, without what is meant for a terminal."""
    lines = _CONTROL.sub("", text).strip().splitlines()
    return "\n".join(lines[-_CONSOLE_LINES:])
