"""The registry of engines: names to engine classes, imported when first asked for.

An engine of another package registers itself as an entry point of the group `anyvirt.engines`,
whose name is the engine's and whose object is the engine class.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from anyvirt.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from anyvirt.engines.engine import Engine

_BUILT_IN = {
    "native": "anyvirt.engines.native:NativeEngine",
    "container": "anyvirt.engines.container:ContainerEngine",
    "user": "anyvirt.engines.user:UserEngine",
    "translator": "anyvirt.engines.translator:TranslatorEngine",
    "interpreter": "anyvirt.engines.interpreter:InterpreterEngine",
}


def engine_names() -> tuple[str, ...]:
    """All engines' names: the built-in ones, lightest first, then those of other packages."""
    others = (point.name for point in _entry_points())
    return (*_BUILT_IN, *(name for name in others if name not in _BUILT_IN))


@cache
def get(name: str) -> Engine:
    """The engine called `name`; UsageError, listing the names there are, for any other name."""
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        engine_class = getattr(import_module(module), attribute)
    else:
        point = next((point for point in _entry_points() if point.name == name), None)
        if point is None:
            raise UsageError(f"there is no engine {name!r}: the engines are {', '.join(engine_names())}")
        engine_class = point.load()
    engine: Engine = engine_class()
    return engine


def _entry_points() -> EntryPoints:
    # Imported here because it takes longer than starting a container.
    from importlib.metadata import entry_points

    return entry_points(group="anyvirt.engines")
