"""The machine a comparison ran on, in the general terms that a reader needs to judge the numbers."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_NOISE = re.compile(r"\((R|TM|r|tm)\)|@.*|\bCPU\b|\bProcessor\b|\d+-Core")


@dataclass(frozen=True)
class HostFacts:
    """CPU, memory and software of the host."""

    cpu: str
    cpus: int
    """CPUs that this process may use."""
    memory: int
    """Bytes."""
    kernel: str
    isa: str
    python: str
    anyvirt: str

    def __str__(self) -> str:
        gibibytes = self.memory / (1 << 30)
        return f"{self.cpu}, {self.cpus} CPUs, {gibibytes:.0f} GiB of memory, Linux {self.kernel}"


def host_facts() -> HostFacts:
    """The facts about this host."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return HostFacts(
        cpu=cpu_model(Path("/proc/cpuinfo").read_text(errors="replace")),
        cpus=len(os.sched_getaffinity(0)),
        memory=memory,
        kernel=_general(platform.release()),
        isa=platform.machine(),
        python=platform.python_version(),
        anyvirt=version("anyvirt"),
    )


def cpu_model(cpuinfo: str) -> str:
    """The CPU's name in the text of /proc/cpuinfo, without trademarks and clock rates."""
    match = re.search(r"^(?:model name|uarch|cpu model|cpu)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return " ".join(_NOISE.sub(" ", match[1]).split()) if match else platform.machine()


def _general(release: str) -> str:
    """The version in a kernel's release, without what its builder appended."""
    match = re.match(r"\d+(\.\d+)*", release)
    return match[0] if match else release
