"""Kernels and suites that others have written, built by whoever wants to run them; nothing of them is here.

ANYVIRT_XV6 names a directory with xv6's `kernel` and `fs.img`, ANYVIRT_KVM_UNIT_TESTS one with `sbi.flat` and
`selftest.flat` of kvm-unit-tests for riscv64. Without them there is nothing to run.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

import anyvirt
from anyvirt.devices.disk import RawDisk
from anyvirt.devices.virtio.blk import VirtioBlk
from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.machines.ending import Reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TIERS = ["interpreter", "auto"]
LONG = 600


def built(variable, *names):
    """The files of a guest by name, or a skip that says why."""
    directory = os.environ.get(variable)
    files = [Path(directory or "") / name for name in names]
    if not directory or not all(path.is_file() for path in files):
        pytest.skip(f"{variable} does not name a directory with {' and '.join(names)}")
    return files


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("tier", TIERS)
def test_xv6_passes_its_quick_tests(tier, cpus, tmp_path):
    kernel, image = built("ANYVIRT_XV6", "kernel", "fs.img")
    disk = tmp_path / "fs.img"
    shutil.copyfile(image, disk)

    def attach(board):
        board.attach_virtio_mmio(
            "disk", lambda wire: VirtioMmio(VirtioBlk(board.memory, RawDisk(disk)), interrupt=wire), slot=0
        )

    with anyvirt.Machine(firmware=kernel, memory="128M", cpus=cpus, tier=tier, attach=attach) as machine:
        machine.console.expect(r"\$ ", timeout=LONG)
        machine.console.send("usertests -q\n")
        verdict = machine.console.expect(
            r"(ALL TESTS PASSED|SOME TESTS FAILED|FAILED -- .*|panic.*)\n", timeout=LONG
        )
        assert verdict[1] == "ALL TESTS PASSED", machine.console.text[-1000:]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("name", "least"), [("sbi", 50), ("selftest", 6)])
def test_a_program_of_kvm_unit_tests_passes(name, least, tier):
    (image,) = built("ANYVIRT_KVM_UNIT_TESTS", f"{name}.flat")
    with anyvirt.Machine(kernel=image, append="foo bar baz", memory="4G", cpus=3, tier=tier) as machine:
        assert machine.run(seconds=LONG).reason is Reason.POWEROFF
        text = machine.console.text
    assert not re.search(r"^FAIL.*", text, re.MULTILINE), text
    assert len(re.findall(r"^PASS: ", text, re.MULTILINE)) >= least
