"""Debian's kernel on our machines: to a shell on the console, in each tier, with several CPUs and OpenSBI."""

import hashlib
import shutil
import time
from pathlib import Path

import pytest

import anyvirt
from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.images.kernels import installed_kernels
from anyvirt.isa.names import Isa
from anyvirt.machines.ending import Reason
from anyvirt.machines.recording import state_digest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PATIENCE = 150
OPENSBI = Path("/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin")
TOOLS = ("sh", "cat", "uname", "sleep", "nproc", "seq", "sha256sum", "taskset", "true", "stty")
DIGEST = hashlib.sha256("".join(f"{number}\n" for number in range(1, 20001)).encode()).hexdigest()
PROMPT = r"(?m)^ready> "


@pytest.fixture(scope="module")
def initrd(tmp_path_factory, riscv64_busybox):
    directory = tmp_path_factory.mktemp("linux")
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(riscv64_busybox, root / "bin/busybox")
    for tool in TOOLS:
        (root / "bin" / tool).symlink_to("busybox")
    shell = Run(("/bin/sh", "-i"), {"PATH": "/bin", "PS1": "ready> "}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
    return make_initramfs(Initramfs(Isa.RISCV64, files=root, channel="", run=shell), directory)


@pytest.fixture(scope="module")
def kernel(riscv64_kernel):
    return next(installed_kernels(riscv64_kernel)).path


@pytest.mark.parametrize(
    ("tier", "cpus", "firmware"),
    [
        ("interpreter", 1, None),
        ("stencil", 1, None),
        ("auto", 1, None),
        ("auto", 2, None),
        ("interpreter", 2, None),
        ("stencil", 2, None),
        ("stencil", 2, OPENSBI),
    ],
)
def test_debian_s_kernel_comes_to_a_shell_works_and_is_turned_off(kernel, initrd, tier, cpus, firmware):
    if firmware is not None and not firmware.exists():
        pytest.skip(f"{firmware} is not there (Debian: opensbi)")
    with anyvirt.Machine(
        kernel=kernel,
        initrd=initrd,
        append="console=ttyS0 panic=-1 quiet",
        memory="512M",
        cpus=cpus,
        tier=tier,
        firmware=firmware,
    ) as m:
        console = m.console
        console.expect(PROMPT, timeout=PATIENCE)
        console.send("uname -m; nproc\n")
        assert console.expect(r"(?s)(riscv64\r?\n\d+)\r?\n.*?ready> ", timeout=PATIENCE)[1].split() == [
            "riscv64",
            str(cpus),
        ]
        console.send("seq 1 20000 | sha256sum\n")
        assert console.expect(r"([0-9a-f]{64})  -", timeout=PATIENCE)[1] == DIGEST
        console.send("exit\n")
        assert m.run(seconds=PATIENCE).reason is Reason.POWEROFF
        assert "BUG" not in console.text and "Oops" not in console.text


def test_an_idle_kernel_leaves_the_host_alone(kernel, initrd):
    with anyvirt.Machine(
        kernel=kernel, initrd=initrd, append="console=ttyS0 quiet", memory="512M", tier="stencil"
    ) as m:
        m.console.expect(PROMPT, timeout=PATIENCE)
        m.run(seconds=2)
        before = time.process_time()
        m.run(seconds=4)
        assert time.process_time() - before < 2


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_counted_boot_is_the_same_in_every_tier_and_run(kernel, initrd, cpus):
    seen = []
    for tier in ("interpreter", "stencil", "auto", "auto"):
        with anyvirt.Machine(
            kernel=kernel, initrd=initrd, append="console=ttyS0", memory="256M", cpus=cpus, tier=tier, seed=7
        ) as m:
            assert m.run(instructions=300_000_000).reason is Reason.LIMIT
            memory = hashlib.sha256()
            for page in m.board.memory.dirty_pages():
                memory.update(m.board.memory.view(page, 4096))
            harts = [(hart.pc, hart.cpu.instructions, list(hart.x)) for hart in m.harts]
            seen.append((m.clock.now(), memory.hexdigest(), harts))
    assert seen[0] == seen[1] == seen[2]


def test_a_booted_kernel_goes_on_in_the_other_tier_and_in_clones(kernel, initrd, tmp_path):
    with anyvirt.Machine(
        kernel=kernel, initrd=initrd, append="console=ttyS0 quiet", memory="256M", cpus=2, tier="stencil"
    ) as m:
        m.console.expect(PROMPT, timeout=PATIENCE)
        m.console.send("export FROM=before\n")
        m.console.expect(PROMPT, timeout=PATIENCE)
        m.snapshot(tmp_path / "s")
        others = [
            anyvirt.Machine.restore(tmp_path / "s", tier="interpreter"),
            anyvirt.Machine.restore(tmp_path / "s", tier="stencil"),
            m.clone(),
        ]
        m.switch("interpreter")
        for number, machine in enumerate([m, *others]):
            machine.console.send(f"export NOW={number}; echo now $NOW $FROM; seq 1 20000 | sha256sum\n")
            assert machine.console.expect(r"now (\d \w+)", timeout=PATIENCE)[1] == f"{number} before"
            assert machine.console.expect(r"([0-9a-f]{64})  -", timeout=PATIENCE)[1] == DIGEST
        for number, machine in enumerate([m, *others]):
            machine.switch("stencil")
            machine.console.send("echo again $NOW; exit\n")
            assert machine.console.expect(r"again (\d)", timeout=PATIENCE)[1] == str(number)
            assert machine.run(seconds=PATIENCE).reason is Reason.POWEROFF
            assert "BUG" not in machine.console.text and "Oops" not in machine.console.text


def test_a_snapshot_of_a_counted_boot_goes_on_to_the_same_state(kernel, initrd, tmp_path):
    with anyvirt.Machine(
        kernel=kernel, initrd=initrd, append="console=ttyS0", memory="256M", tier="stencil", seed=7
    ) as m:
        m.run(instructions=200_000_000)
        m.snapshot(tmp_path / "s")
        seen = []
        for machine in (m, anyvirt.Machine.restore(tmp_path / "s", tier="interpreter"), m.clone()):
            assert machine.run(instructions=100_000_000).reason is Reason.LIMIT
            memory = hashlib.sha256(machine.memory[0x8000_0000:0x9000_0000]).hexdigest()
            cpu = machine.harts[0].cpu.save_state()
            # What the hart knows of its TLB is no guest's business.
            del cpu["files"]["large"]
            seen.append((machine.clock.now(), memory, cpu))
        assert seen[0] == seen[1] == seen[2]


def test_a_recorded_shell_is_replayed_and_gone_back_in(kernel, initrd, tmp_path):
    with anyvirt.Machine(
        kernel=kernel, initrd=initrd, append="console=ttyS0 quiet", memory="256M", tier="stencil", seed=7
    ) as m:
        m.console.expect(PROMPT, instructions=10_000_000_000)
        with m.record(tmp_path / "r", every=5_000_000):
            m.console.send("echo first $((6*7))\n")
            m.console.expect(r"first 42\s+ready> ", instructions=1_000_000_000)
            m.console.send("seq 1 2000 | sha256sum\n")
            m.console.expect(r"([0-9a-f]{64})  -", instructions=2_000_000_000)
        text = m.console.text
    for tier in ("interpreter", "stencil"):
        again = anyvirt.Machine.replay(tmp_path / "r", tier=tier)
        if tier == "stencil":
            again.keep_history()
        again.replay_to_end()
        assert again.console.text == text
    end, digest, cpu = again.position, state_digest(again), again.harts[0].cpu
    # From the system call that writes the last line back to its entry, by its trap.
    entry = again.harts[0].csr["stvec"]
    cpu.breakpoints.add(entry)
    assert again.reverse_continue().reason is Reason.HOOK
    assert again.harts[0].pc == entry and again.position < end
    cpu.breakpoints.clear()
    again.reverse_step(30_000_000)
    assert again.replay_to_end().reason is Reason.LIMIT
    assert (again.position, state_digest(again)) == (end, digest)


def test_a_counted_boot_comes_to_the_same_shell(kernel, initrd):
    with anyvirt.Machine(
        kernel=kernel, initrd=initrd, append="console=ttyS0 quiet", memory="256M", tier="stencil", seed=7
    ) as m:
        m.console.expect(PROMPT, instructions=10_000_000_000)
        m.console.send("uname -m\n")
        m.console.expect("riscv64", instructions=1_000_000_000)
        m.console.send("exit\n")
        assert m.run(instructions=5_000_000_000).reason is Reason.POWEROFF
