"""Debian's kernel under gdb and under the monitor: from its first instruction to a shell on its console."""

import re
import shutil
import subprocess
import threading

import pytest

import anyvirt
from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.images.kernels import installed_kernels
from anyvirt.isa.names import Isa
from anyvirt.machines.debugging.monitor import Monitor
from anyvirt.machines.ending import Reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

PATIENCE = 200
PROMPT = r"(?m)^ready> "


@pytest.fixture(scope="module")
def initrd(tmp_path_factory, riscv64_busybox):
    directory = tmp_path_factory.mktemp("linux")
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(riscv64_busybox, root / "bin/busybox")
    for tool in ("sh", "cat", "grep"):
        (root / "bin" / tool).symlink_to("busybox")
    shell = Run(("/bin/sh", "-i"), {"PATH": "/bin", "PS1": "ready> "}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
    return make_initramfs(Initramfs(Isa.RISCV64, files=root, channel="", run=shell), directory)


@pytest.fixture
def machine(riscv64_kernel, initrd):
    kernel = next(installed_kernels(riscv64_kernel)).path
    with anyvirt.Machine(
        kernel=kernel,
        initrd=initrd,
        append="console=ttyS0 quiet nokaslr panic=-1",
        memory="512M",
        cpus=2,
        tier="stencil",
        seed=1,
    ) as made:
        yield made


def test_a_kernel_is_debugged_by_the_monitor_from_its_entry_to_a_shell(machine, tmp_path):
    m = Monitor(machine)
    m.execute("until 0x80200000")
    assert m.hart.privilege == 1
    assert "addresses are physical" in m.execute("walk $pc")
    m.execute('expect "(?m)^ready> " 200')
    m.execute('send "cat /proc/kallsyms | grep -w -e do_exit -e _text -e panic; echo do""ne\\n"')
    m.execute('expect "done\\r?\\n" 200')
    listing = tmp_path / "kallsyms"
    listing.write_text("\n".join(re.findall(r"(?m)^[0-9a-f]{16} \w .*$", machine.console.text)))
    assert m.symbols.load(listing) >= 3
    assert "satp" in m.execute("csr") and "Sv" in m.execute("csr satp")
    assert "executable" in m.execute("walk do_exit")
    assert len(m.execute("mappings").splitlines()) > 10
    m.execute("tbreak do_exit if $a0 == 0x300")
    m.execute('send "sh -c \\"exit 3\\"\\n"')
    shown = m.execute("run 200")
    assert "breakpoint" in shown and "<do_exit>" in shown
    assert m.execute("backtrace").startswith("#0 ")
    assert m.execute("disassemble do_exit, 3").count("do_exit") == 3
    m.execute("delete")
    m.execute('expect "(?m)^ready> " 200')
    m.execute('send "exit\\n"')
    assert "turned the machine off" in m.execute("continue")


def test_a_kernel_is_debugged_by_gdb(machine):
    if shutil.which("gdb-multiarch") is None:
        pytest.skip("needs gdb-multiarch (package gdb-multiarch)")
    machine.console.expect(PROMPT, timeout=PATIENCE)
    # What is typed comes by interrupts.
    machine.console.send("cat /proc/interrupts\n")
    address = []
    listening = threading.Event()

    def serve():
        machine.serve_gdb(":0", on_listening=lambda place: (address.append(place), listening.set()))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert listening.wait(PATIENCE)
    script = [
        "set pagination off", "set confirm off", "set architecture riscv:rv64", f"target remote {address[0]}",
        "p/x $stvec >> 32", "p/x $satp >> 60 > 7", "set $handler = $stvec", "hbreak *$handler", "continue",
        "p $pc == $handler", "x/2i $pc", "p/x *(int*)$pc != 0", "stepi",
        "p $pc == $handler + 4 || $pc == $handler + 2",
        "info threads", "monitor walk $pc", "monitor csr scause", "delete", "detach",
    ]  # fmt: skip
    words = [word for line in script for word in ("-ex", line)]
    done = subprocess.run(
        ["gdb-multiarch", "-nx", "-q", "-batch", *words],
        capture_output=True,
        text=True,
        timeout=90,
        input="",
    )
    thread.join(PATIENCE)
    shown = done.stdout + done.stderr
    assert re.findall(r"\$\d+ = (\w+)\n", shown) == ["0xffffffff", "0x1", "1", "0x1", "1"], shown
    assert "hart 0: " in shown and "hart 1: " in shown, shown
    assert re.search(r"level \d: entry \d+ at", shown) and "scause" in shown, shown
    machine.console.expect(PROMPT, timeout=PATIENCE)
    machine.console.send("exit\n")
    assert machine.run(seconds=PATIENCE).reason is Reason.POWEROFF
