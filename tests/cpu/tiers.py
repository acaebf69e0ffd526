"""The executors that this version has, for tests that hold for every one of them.

The benchmark knows them; its module `guest` also loads the kernels into one.
"""

import importlib.util
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "cpu"


def _load_guest():
    spec = importlib.util.spec_from_file_location("benchmark_guest", BENCHMARKS / "guest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


guest = _load_guest()
EXECUTORS = guest.executors()
"""Pairs of tier and memory model."""
NAMES = ["-".join(pair) for pair in EXECUTORS]
