"""An engine whose machine is the agent on the host's own kernel: all of an instance but the board."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anyvirt.engines.engine import Architecture, Availability, Execution
from anyvirt.engines.machine_engine import MachineEngine

_MONITOR = Path(__file__).with_name("agent_monitor.py")


class AgentEngine(MachineEngine):
    name = "agent"
    summary = "the agent without a machine"
    architecture = Architecture.NONE
    execution = Execution.NATIVE
    weight = 1000
    tier = "none"
    monitor = (sys.executable, str(_MONITOR))

    def probe(self):
        return Availability(True)

    def refusal(self, program):
        return None


@pytest.fixture
def engine(tmp_path, monkeypatch):
    if os.getuid() != 0 or os.uname().machine != "x86_64" or shutil.which("unshare") is None:
        pytest.skip("needs root on an x86-64, and unshare")
    tried = subprocess.run(["unshare", "--fork", "--pid", "--uts", "true"], capture_output=True, timeout=20)
    if tried.returncode != 0:
        pytest.skip("namespaces cannot be made here")
    monkeypatch.setenv("ANYVIRT_TEST_DIRECTORY", str(tmp_path))
    return AgentEngine()
