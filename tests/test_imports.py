"""What is imported when: the verbs that must be quick pay for nothing they do not use."""

import subprocess
import sys

import pytest

HEAVY = ("llvmlite", "matplotlib", "pyroute2", "numpy", "rich", "hypothesis", "fdt", "importlib.metadata")
PROBE = """
import sys
sys.argv = ["anyvirt", *{words!r}]
from anyvirt.cli import main
try:
    main()
except SystemExit as error:
    status = error.code
print("MODULES", *sys.modules, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("run", "--help"),
        ("run", "--on", "native", "--", "true"),
        ("run", "--on", "container", "--", "true"),
    ],
)
def test_quick_verbs_import_nothing_heavy(words):
    from anyvirt.engines import get

    if "container" in words and not get("container").probe().available:
        pytest.skip("engine container is not available: " + get("container").probe().reason)
    completed = subprocess.run(
        [sys.executable, "-c", PROBE.format(words=words)], capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 0, completed.stderr
    modules = completed.stderr.rpartition("MODULES")[2].split()
    assert "anyvirt.cli" in modules
    assert not [name for name in modules if name in HEAVY]
