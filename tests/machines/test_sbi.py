"""Our own firmware: what it answers, compared with OpenSBI in QEMU, and what it hides."""

import shutil
import subprocess

import pytest

import anyvirt
from anyvirt.machines import firmware
from anyvirt.machines.ending import Reason

from .test_machine import LONG, SMALL, TIERS, values


def run(path, **options):
    with anyvirt.Machine(kernel=path, memory=SMALL, **options) as m:
        return m.run(seconds=LONG), m.console.text


@pytest.mark.parametrize("name", ["calls", "harts"])
def test_calls_are_answered_as_by_opensbi_in_qemu(program, name):
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("qemu-system-riscv64 is not installed (Debian: qemu-system-misc)")
    # In a thread of its own, each of QEMU's harts would wait for those that the host lets wait.
    words = ["-accel", "tcg,thread=single"]
    words += ["-M", "virt", "-smp", "4" if name == "harts" else "1", "-m", "64", "-display", "none"]
    words += ["-serial", "stdio", "-monitor", "none", "-kernel", program(name)]
    completed = subprocess.run(
        ["qemu-system-riscv64", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100
    )
    theirs = completed.stdout.replace("\r", "").partition(
        "hart 0000000000000000\n" if name == "calls" else "argument"
    )
    _, ours = run(program(name), cpus=4 if name == "harts" else 1, tier="interpreter")
    assert ours == theirs[1] + theirs[2]


@pytest.mark.parametrize("tier", TIERS)
def test_calls_are_the_same_in_every_tier(program, tier):
    ending, text = run(program("calls"), tier=tier)
    assert ending.reason is Reason.POWEROFF
    assert values(text, "probe") == [1, 1, 1, 1, 1, 1, 0]
    assert values(text, "sip") == [2, 0, 32, 0]


@pytest.mark.parametrize("tier", TIERS)
def test_the_debug_console_prints_memory_only(program, tier):
    ending, text = run(program("print"), tier=tier)
    assert ending.reason is Reason.RESET
    assert text.startswith("printed at once\n") and text.endswith("!\n")
    refused = (1 << 64) - 3
    assert values(text, "bytes") == [16]
    assert [values(text, name) for name in ("no memory", "device", "beyond")] == [[refused]] * 3


def test_the_firmware_is_hidden_from_the_kernel(program):
    _, text = run(program("hidden"), tier="interpreter")
    assert values(text, "load") == [5, 5, 0]
    assert values(text, "store") == [7, 7, 0]


def test_the_code_of_the_firmware_is_what_its_comments_say():
    import re
    import struct
    from pathlib import Path

    from anyvirt.isa.riscv64_system import riscv64_system

    rom = firmware.firmware_rom()
    lines = re.findall(r"# (1[0-9a-f]{3}) ([^:\n]+)", Path(firmware.__file__).read_text())
    assert len(lines) > 40
    for address, text in lines:
        (word,) = struct.unpack_from("<I", rom, int(address, 16) - firmware.START)
        assert word == int.from_bytes(riscv64_system.assemble(text, pc=int(address, 16)), "little"), text


def test_kernels_are_told_what_the_instruction_set_has():
    from anyvirt.isa.riscv64_system import BLOCK, DEVICE_TREE_ISA
    from anyvirt.machines.machine import HART

    assert HART.isa == DEVICE_TREE_ISA
    assert HART.cache_block == BLOCK


REFUSED = {"param": (1 << 64) - 3, "address": (1 << 64) - 5, "support": (1 << 64) - 2}


@pytest.mark.parametrize("tier", TIERS)
def test_harts_are_suspended_until_an_interrupt_comes(program, tier):
    ending, text = run(program("suspend"), tier=tier, cpus=2)
    assert ending.reason is Reason.POWEROFF
    mistakes = ("no such type", "of no platform", "nowhere", "in the firmware")
    errors = [values(text, name)[0] for name in mistakes]
    assert errors == [REFUSED[name] for name in ("param", "support", "address", "address")]
    assert values(text, "retentive") == [0] and values(text, "late") == [1]
    resumed = {"hart": 0, "argument": 77, "satp": 0, "sstatus.sie": 0, "sie": 32, "sip": 32}
    assert {name: values(text, name)[0] for name in resumed} == resumed
    assert values(text, "other") == [4] and values(text, "stopped") == [1]
    assert "not here" not in text


def test_suspended_harts_are_the_same_in_counted_runs(program):
    with anyvirt.Machine(kernel=program("suspend"), memory=SMALL, cpus=2, tier="interpreter", seed=1) as m:
        assert m.run(instructions=5_000_000).reason is Reason.POWEROFF
        assert values(m.console.text, "stopped") == [1]


@pytest.mark.parametrize("tier", TIERS)
def test_what_is_typed_reaches_the_console_of_the_firmware(program, tier):
    with anyvirt.Machine(kernel=program("typed"), memory=SMALL, tier=tier) as m:
        m.console.expect("type\n", timeout=LONG)
        m.console.send("abcdefg")
        assert m.run(seconds=LONG).reason is Reason.POWEROFF
        text = m.console.text
    assert values(text, "nothing") == [(1 << 64) - 1] and values(text, "read") == [0]
    assert "type\nabc\ndefg\n" in text
    assert values(text, "device") == values(text, "firmware") == [REFUSED["param"]]
    assert values(text, "legacy") == [0] and values(text, "sip") == [2]
    assert values(text, "cleared") == [1, 0] and values(text, "fence") == [0]
    for name in ("no mask", "at the end", "of a device"):
        assert values(text, name) == [REFUSED["address"]]
