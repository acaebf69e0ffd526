"""Capabilities: their numbers against the kernel's header, and giving them up, as the kernel tells it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from anyvirt.linux.capabilities import CONTAINER_DEFAULT, CONTAINER_MASK, LinuxCapability

HEADER = Path("/usr/include/linux/capability.h")


def test_the_numbers_are_those_of_the_header():
    if not HEADER.exists():
        pytest.skip(f"{HEADER} (package linux-libc-dev) is not installed")
    defined = dict(re.findall(r"#define CAP_(\w+)\s+(\d+)$", HEADER.read_text(), re.M))
    assert {name: int(number) for name, number in defined.items()} == {
        capability.name: capability.value for capability in LinuxCapability
    }


def test_nothing_that_reaches_the_host_is_kept():
    for name in ("SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "DAC_READ_SEARCH", "MKNOD", "BPF"):
        assert LinuxCapability[name] not in CONTAINER_DEFAULT


def test_what_is_given_up_is_gone_from_every_set():
    script = f"""
from anyvirt.linux import capabilities, kernel
capabilities.restrict({CONTAINER_MASK})
print(open("/proc/self/status").read())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this user may not change its bounding set")
    sets = {name: int(value, 16) for name, value in re.findall(r"Cap(\w+):\s+(\w+)", done.stdout)}
    before = {
        name: int(value, 16)
        for name, value in re.findall(r"Cap(\w+):\s+(\w+)", Path("/proc/self/status").read_text())
    }
    assert sets["Bnd"] == before["Bnd"] & CONTAINER_MASK
    assert sets["Prm"] == sets["Eff"] == before["Prm"] & CONTAINER_MASK
    assert sets["Inh"] == sets["Amb"] == 0
