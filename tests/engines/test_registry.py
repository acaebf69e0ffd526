"""The registry: names to engines, including those of other packages."""

import importlib
import pkgutil
from importlib.metadata import EntryPoint

import pytest

import anyvirt
import anyvirt.engines as registry
from anyvirt import engines
from anyvirt.engines.native import NativeEngine
from anyvirt.errors import UsageError

get = importlib.import_module("anyvirt.engines").get


def test_every_built_in_engine_loads_under_its_own_name():
    names = importlib.import_module("anyvirt.engines").engine_names()
    assert names[:5] == ("native", "container", "user", "translator", "interpreter")
    assert [get(name).name for name in names] == list(names)


def test_engines_are_ordered_by_weight():
    weights = [get(name).weight for name in ("native", "container", "user", "translator", "interpreter")]
    assert weights == sorted(set(weights))


def test_an_unknown_engine_is_refused_with_the_names_there_are():
    with pytest.raises(
        UsageError,
        match="no engine 'vmware': the engines are native, container, user, translator, interpreter",
    ):
        get("vmware")


def test_an_engine_of_another_package_is_an_entry_point(monkeypatch):
    class Other(NativeEngine):
        name = "other"

    point = EntryPoint("other", "nowhere:Other", "anyvirt.engines")
    module = importlib.import_module("anyvirt.engines")
    monkeypatch.setattr(module, "_entry_points", lambda: [point])
    monkeypatch.setattr(EntryPoint, "load", lambda self: Other)
    assert "other" in module.engine_names()
    assert get("other").name == "other"
    get.cache_clear()


def test_public_functions_stay_callable_whatever_is_imported():
    for module in pkgutil.walk_packages(anyvirt.__path__, "anyvirt."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert callable(anyvirt.engines)
    assert callable(anyvirt.compare)
    assert engines is registry is anyvirt.engines


def test_every_public_name_resolves():
    for name in anyvirt.__all__:
        assert getattr(anyvirt, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = anyvirt.Nonsense
