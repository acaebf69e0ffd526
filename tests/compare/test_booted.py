"""Machines that are booted once: a stand-in that starts quickly, and what its commands are charged with."""

import os
import subprocess
import time

import pytest

from anyvirt.compare import comparison
from anyvirt.compare.booted import BootedGuests, boots, host_account
from anyvirt.compare.comparison import compare
from anyvirt.compare.guest_run import MeasurementError, run_guest
from anyvirt.compare.results import Measured, Unmeasured
from anyvirt.compare.turns import Budget
from anyvirt.compare.workloads import WORKLOADS
from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import World
from anyvirt.guest import Guest
from anyvirt.images.debian import PackageError

from .conftest import FakeEngine


class FakeMachine(FakeEngine):
    """An engine whose idle guests count as machines with a kernel."""

    world = World.MACHINE

    def __init__(self, name, **settings):
        super().__init__(name, **settings)
        self.idle = []
        self.others = 0

    def create(self, guest, streams, terminal):
        instance = super().create(guest, streams, terminal)
        if guest.command:
            self.others += 1
        else:
            self.idle.append(instance)
        return instance


def shell(script):
    return Guest(command=("sh", "-c", script))


def test_which_engines_boot():
    assert {name for name in engine_names() if boots(get(name))} == {"translator", "interpreter"}


def test_other_engines_start_their_guests_themselves():
    engine = FakeEngine("native")
    with BootedGuests() as booted:
        assert booted.starter(engine, shell("true")) is engine


def test_commands_run_in_one_machine(tmp_path):
    engine = FakeMachine("machine")
    with BootedGuests() as booted:
        for number in range(3):
            guest = Guest(command=("sh", "-c", f"read x; pwd; exit {number}"), workdir=str(tmp_path))
            run = run_guest(booted.starter(engine, guest), guest, timeout=20)
            assert (run.status.code, run.stdout) == (number, f"{tmp_path}\n".encode())
            assert run.usage.peak_memory
        assert (len(engine.idle), engine.others) == (1, 0)
        engine.idle[0].kill()
        engine.idle[0].wait(20)
        assert run_guest(booted.starter(engine, guest), guest, timeout=20).status.code == 2
        assert len(engine.idle) == 2
    assert engine.idle[1].state == "stopped"


def test_a_command_that_hangs_is_killed_and_the_machine_stays():
    engine = FakeMachine("machine")
    with BootedGuests() as booted:
        starter = booted.starter(engine, shell("true"))
        with pytest.raises(MeasurementError, match=r"not ended after 0\.2 s"):
            run_guest(starter, shell("sleep 100"), timeout=0.2)
        assert run_guest(starter, shell("echo on"), timeout=20).stdout == b"on\n"
        assert len(engine.idle) == 1


def test_the_account_is_that_of_all_processes():
    script = "sh -c 'echo $$; while :; do :; done' & while :; do :; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        try:
            deadline = time.monotonic() + 60
            while host_account(process.pid).user_seconds < host_account(child).user_seconds + 0.05:
                assert time.monotonic() < deadline
            both = host_account(process.pid)
            assert both.peak_memory > 100_000
            assert host_account(child).user_seconds + host_account(child).system_seconds > 0
        finally:
            os.kill(child, 9)
            process.kill()


def test_a_comparison_boots_once_and_says_so(fake_engines, monkeypatch):
    machine, other = FakeMachine("machine"), FakeMachine("other")
    fake_engines(FakeEngine("native"), machine, other)
    monkeypatch.setattr(comparison, "WORKLOADS", [WORKLOADS[0], WORKLOADS[5]])
    monkeypatch.setattr(comparison, "MEMORY_BUDGET", Budget(most=1))
    found = compare(engines=["native", "machine"], repeat=1)
    for name in ("integer", "system-calls", "idle-memory", "warm-start"):
        assert isinstance(found.row(name).cells["machine"], Measured), found.row(name)
    assert len(machine.idle) == 1
    assert found.notes == ("machine has booted a kernel once for everything but starts and idle instances.",)
    assert not other.idle
    boot, start = found.row("boot").cells, found.row("warm-start").cells
    assert boot["native"] == Unmeasured("it boots no kernel of its own")
    assert boot["machine"].samples <= start["machine"].samples
    assert boot["machine"].ratios == ()
    assert isinstance(found.row("command-start").cells["machine"], Measured)


def test_an_engine_that_boots_is_measured_like_others(fake_engines):
    machine = FakeMachine("machine")
    fake_engines(FakeEngine("native"), machine, FakeMachine("foreign", refusal="another CPU's"))
    found = compare(["true"], repeat=2)
    assert isinstance(found.row("wall-time").cells["machine"], Measured)
    assert found.row("wall-time").cells["foreign"] == Unmeasured("another CPU's")
    assert len(machine.idle) == 1


class LackingEngine(FakeEngine):
    """An engine that needs something from the network, and a network that may be there."""

    def __init__(self, name, *, online, **settings):
        super().__init__(name, **settings)
        self.online, self.fetched = online, 0

    def to_fetch(self):
        return None if self.fetched else "a kernel (1 MB)"

    def fetch(self):
        if not self.online:
            raise PackageError("there is no network")
        self.fetched += 1


def test_what_an_engine_lacks_is_fetched_if_that_is_wanted(fake_engines):
    lacking = LackingEngine("lacking", online=True)
    foreign = LackingEngine("foreign", online=True, refusal="another CPU's")
    fake_engines(FakeEngine("native"), lacking, foreign)
    found = compare(["true"], repeat=1)
    wanted = "it needs a kernel (1 MB), which is fetched once if you allow it: --fetch, or --on lacking"
    assert found.row("wall-time").cells["lacking"] == Unmeasured(wanted)
    assert found.row("wall-time").cells["foreign"] == Unmeasured("another CPU's")
    steps = []
    found = compare(["true"], repeat=1, fetch=True, progress=steps.append)
    assert steps[0].label == "fetching a kernel (1 MB)"
    assert isinstance(found.row("wall-time").cells["lacking"], Measured)
    assert (lacking.fetched, foreign.fetched) == (1, 0)
    lacking.fetched = 0
    found = compare(["true"], engines=["native", "lacking"], repeat=1)
    assert isinstance(found.row("wall-time").cells["lacking"], Measured)


def test_without_a_network_the_others_are_measured(fake_engines):
    fake_engines(FakeEngine("native"), LackingEngine("lacking", online=False))
    found = compare(["true"], repeat=1, fetch=True)
    reason = "it needs a kernel (1 MB), which could not be fetched: there is no network"
    assert found.row("wall-time").cells["lacking"] == Unmeasured(reason)
    assert isinstance(found.row("wall-time").cells["native"], Measured)


def test_machines_need_a_kernel_until_it_is_in_the_store(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYVIRT_STATE", str(tmp_path))
    engine = get("translator")
    assert engine.to_fetch() == "Debian's kernel for riscv64 (112 MB)"
    kernel = tmp_path / "images/kernels/linux-image-6.1-riscv64/root/boot/vmlinux-6.1"
    kernel.parent.mkdir(parents=True)
    kernel.write_bytes(b"a kernel")
    assert engine.to_fetch() is None
