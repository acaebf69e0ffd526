"""An ordinary gdb debugs machines: harts are its threads, memory is the hart's or physical."""

import os
import re
import shutil
import subprocess
import threading
import time

import pytest

import anyvirt
from anyvirt.machines.ending import Reason

pytestmark = pytest.mark.timeout(400)
TIMEOUT = 200


class Served:
    """A machine that gdb has, in a thread of ours."""

    def __init__(self, machine, program):
        self.machine = machine
        self.program = program
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._listening.wait(TIMEOUT)

    def _serve(self):
        self.machine.serve_gdb(":0", on_listening=self._heard)

    def _heard(self, address):
        self.address = address
        self._listening.set()

    def gdb(self, *script, interrupt=None):
        """What gdb prints for a script; with `interrupt`, a path, Ctrl-C is pressed when it has continued."""
        lines = ["set pagination off", "set confirm off", "set width 0", f"target remote {self.address}"]
        if interrupt is not None:
            lines.append(f"python gdb.events.cont.connect(lambda event: open('{interrupt}', 'w').close())")
        words = [word for line in (*lines, *script) for word in ("-ex", line)]
        with subprocess.Popen(
            ["gdb-multiarch", "-nx", "-q", "-batch", *words, self.program],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
        ) as gdb:
            if interrupt is not None:
                threading.Thread(target=self._interrupt, args=(gdb, interrupt), daemon=True).start()
            try:
                shown, _ = gdb.communicate(timeout=TIMEOUT)
            finally:
                gdb.kill()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        return shown

    def _interrupt(self, gdb, path):
        while not path.exists() and gdb.poll() is None:
            time.sleep(0.02)
        # The machine may not have begun to run yet; gdb tells its server as soon as it does.
        time.sleep(0.3)
        gdb.send_signal(2)


@pytest.fixture
def serve(program):
    """Serve a machine with the program: `serve(cpus=2)`."""
    if shutil.which("gdb-multiarch") is None:
        pytest.skip("needs gdb-multiarch (package gdb-multiarch)")

    def start(*, keeps_history=False, **options):
        path = program("debugged")
        machine = anyvirt.Machine(kernel=path, memory="64M", **{"tier": "stencil", **options})
        if keeps_history:
            machine.keep_history(every=5_000)
        return Served(machine, path)

    return start


@pytest.mark.parametrize("tier", ["interpreter", "stencil"])
def test_breakpoints_steps_and_calls(serve, tier):
    served = serve(tier=tier)
    shown = served.gdb(
        "info registers pc",
        "break work",
        "continue",
        "print number",
        "step",
        "info symbol $pc",
        "finish",
        "stepi",
        "continue",
        "print number",
        "hbreak twice",
        "ignore 2 5",
        "delete 1",
        "continue",
        "print number",
        "bt",
        "set var counter = 500",
        "print counter",
        "detach",
    )
    assert re.search(r"pc\s+0x1000\s", shown)
    assert re.search(r"Breakpoint 1, work \(number=1\)|Breakpoint 1, .* in work", shown)
    assert "$1 = 1" in shown
    assert "twice" in shown
    assert "$2 = 2" in shown or "Value returned is $2 = 2" in shown
    assert re.search(r"#1 .*work", shown) and re.search(r"#2 .*main", shown)
    assert "= 500" in shown
    assert served.machine.run(seconds=0.05).reason is Reason.LIMIT


def test_each_hart_is_a_thread_that_can_be_stepped_alone(serve):
    served = serve(cpus=2)
    shown = served.gdb(
        "break work",
        "continue",
        "info threads",
        "thread 2",
        "set scheduler-locking on",
        "set var $was = counted_by_second",
        "p $before = counter",
        "stepi 50",
        "p counter == $before && counted_by_second > $was",
        "p/x $mhartid",
        "set scheduler-locking off",
        "thread 1",
        "p/x $mhartid",
        "delete",
        "set var $was = counted_by_second",
        "stepi 50",
        "p counted_by_second > $was",
        "thread 1",
        "break work",
        "continue",
        "detach",
    )
    assert re.search(r"\* 1 +Thread 1 \(hart 0: supervisor mode, running\) work", shown)
    assert re.search(r"  2 +Thread 2 \(hart 1: supervisor mode, running\)", shown)
    assert re.findall(r"\$\d+ = (\w+)\n", shown) == ["0", "1", "0x1", "0x0", "1"]
    assert len(re.findall(r"Thread 1 hit Breakpoint \d, work", shown)) == 2


def test_registers_and_memory_as_a_hart_and_as_the_bus_has_it(serve):
    served = serve()
    shown = served.gdb(
        "break twice",
        "continue",
        "x/s 0xffffffc000003000",
        "set var *(char*)0xffffffc000003000 = 'T'",
        "print (char)page[0]",
        "maintenance packet qqemu.PhyMemMode",
        "maintenance packet Qqemu.PhyMemMode:1",
        "x/s 0xffffffc000003000",
        "x/s &page",
        # The UART's line status, and the first word of a clock, which is read by words: devices.
        "x/bx 0x10000005",
        "x/wx 0x101000",
        "maintenance packet Qqemu.PhyMemMode:0",
        "monitor walk 0xffffffc000003000",
        "monitor device nothing",
        "monitor continue",
        "info registers priv scause satp",
        "p $scause",
        "p/x $satp >> 60",
        "p $sstatus",
        "set $sscratch = 0x1234",
        "p/x $sscratch",
        "set $a0 = 77",
        "p $a0",
        "set $ft0.double = 1.5",
        "info registers ft0",
        "p traps",
        "x/2i trapped",
        "detach",
    )
    assert '"what is in the page"' in shown or '"What is in the page"' in shown
    assert "'T'" in shown
    assert re.search(r'received: "0"', shown) and re.search(r'received: "OK"', shown)
    assert "Cannot access memory at address 0xffffffc000003000" in shown
    assert '"That is in the page"' in shown
    assert re.search(r"0x10000005:\s+0x60", shown)
    assert re.search(r"0x101000:\s+0x\w{6,}", shown)
    assert re.search(r"priv\s+0x1\s+prv:1 \[Supervisor\]", shown)
    assert re.search(r"scause\s+0x3\s", shown)
    assert "= 0x8\n" in shown
    assert "UXL=2" in shown
    assert "level 0: entry 3 at" in shown
    assert "there is no device nothing" in shown and "gdb runs the machine itself" in shown
    assert "= 0x1234" in shown and "= 77" in shown and "double = 1.5" in shown
    assert "traps" not in shown.splitlines()[-1]
    assert "<trapped>" in shown


@pytest.mark.parametrize("cpus", [1, 2])
def test_watchpoints(serve, cpus):
    served = serve(cpus=cpus)
    shown = served.gdb(
        "tbreak main",
        "continue",
        "watch counter",
        "continue",
        "continue",
        "delete",
        "watch *(char*)0xffffffc000003000",
        "rwatch page[3]",
        "delete 3",
        "awatch counter",
        "continue",
        "delete",
        "detach",
    )
    assert re.search(r"Hardware watchpoint 2: counter\s+Old value = 0\s+New value = 2", shown)
    assert re.search(r"Hardware watchpoint 2: counter\s+Old value = 2\s+New value = 4", shown)
    assert re.search(r"Hardware access \(read/write\) watchpoint 5: counter", shown)


def test_exceptions_can_be_stepped_into(serve):
    served = serve()
    shown = served.gdb(
        "break trapped",
        "continue",
        "p $scause",
        "p/x *(unsigned*)$sepc",
        "break *($sepc)",
        "set $pc = $sepc",
        "set $priv = 1",
        "stepi",
        "stepi",
        "info symbol $pc",
        "detach",
    )
    assert "$1 = " in shown and "= 0x100073" in shown
    assert re.search(r"trapped in section \.text", shown)


@pytest.mark.parametrize("cpus", [1, 2])
def test_ctrl_c_and_the_end_of_the_machine(serve, tmp_path, cpus):
    served = serve(cpus=cpus)
    shown = served.gdb(
        "continue",
        "p counter > 0",
        "info threads",
        "maintenance packet Qqemu.PhyMemMode:1",
        "set var *(unsigned*)0x100000 = 0x5555",
        "continue",
        interrupt=tmp_path / "running",
    )
    assert "Program received signal SIGINT" in shown or "received signal SIGINT" in shown
    assert "$1 = 1" in shown
    assert "exited normally" in shown
    assert served.machine.run().reason is Reason.POWEROFF


def test_what_kills_turns_the_machine_off(serve):
    served = serve()
    served.gdb("break main", "continue", "kill")
    assert served.machine.run().reason is Reason.POWEROFF


def test_firmware_is_debugged_from_its_first_instruction(tmp_path, serve):
    from anyvirt.isa.riscv64_system import riscv64_system

    served = serve()
    served.gdb("detach")
    image = tmp_path / "firmware.bin"
    text = "addi t0, zero, 1\nloop: addi t0, t0, 1\nwfi\njal zero, loop"
    image.write_bytes(riscv64_system.assemble(text, pc=0x8000_0000))
    machine = anyvirt.Machine(firmware=image, memory="16M", cpus=2)
    served = Served(machine, "")
    shown = served.gdb(
        "hbreak *0x80000004",
        "continue",
        "info threads",
        "p $priv",
        "stepi",
        "p/x $pc",
        "p $t0",
        "x/2i 0x80000004",
        "detach",
    )
    assert "machine mode" in shown
    assert "= 0x80000008" in shown
    assert re.search(r"\$\d+ = 2\n", shown)
    assert re.search(r"addi?\s+t0,t0,1", shown)


# Backwards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tier", ["interpreter", "stencil"])
def test_a_machine_with_a_history_goes_backwards(serve, tier):
    served = serve(tier=tier, seed=1, keeps_history=True)
    shown = served.gdb(
        "break work",
        "ignore 1 400",
        "continue",
        "print number",
        "reverse-continue",
        "print number",
        "set var $there = $pc",
        "stepi 3",
        "reverse-stepi 2",
        "print $pc > $there && $pc <= $there + 4",
        "reverse-stepi",
        "print $pc == $there",
        "delete 1",
        "tbreak twice",
        "continue",
        "reverse-finish",
        "info symbol $pc",
        "tbreak twice",
        "reverse-continue",
        "print number",
        "watch counter",
        "reverse-continue",
        "print counter",
        "info symbol $pc",
        "continue",
        "delete",
        "reverse-continue",
        "print/x $pc",
        "print $mcycle",
        "reverse-stepi",
        "break main",
        "continue",
        "detach",
    )
    printed = re.findall(r"\$\d+ = (\w+)\n", shown)
    assert printed == ["401", "400", "1", "1", "399", "794", "0x1000", "0"], shown
    assert shown.count("No more reverse-execution history.") == 2
    assert len(re.findall(r"work(?: \+ \d+)? in section \.text", shown)) == 2
    assert re.search(r"Hardware watchpoint \d: counter\s+Old value = 796\s+New value = 794", shown)
    assert re.search(r"Hardware watchpoint \d: counter\s+Old value = 794\s+New value = 796", shown)
    assert re.search(r"Breakpoint \d, .*main", shown)
    assert served.machine.run(instructions=1000).reason is Reason.LIMIT


def test_ctrl_c_and_the_end_of_a_machine_that_can_go_back(serve, tmp_path):
    served = serve(seed=1, keeps_history=True)
    shown = served.gdb(
        "continue",
        "stepi 5",
        "maintenance packet Qqemu.PhyMemMode:1",
        "set var *(unsigned*)0x100000 = 0x5555",
        "continue",
        "set var $there = $pc",
        "reverse-stepi",
        "stepi",
        "print $pc == $there",
        "kill",
        interrupt=tmp_path / "running",
    )
    assert "received signal SIGINT" in shown
    assert re.findall(r"\$\d+ = (\w+)\n", shown) == ["1"]
    assert shown.count("No more reverse-execution history.") == 1
    assert served.machine.run(instructions=1).reason is Reason.POWEROFF


def test_harts_of_a_machine_with_a_history_go_together(serve):
    served = serve(cpus=2, seed=1, keeps_history=True)
    shown = served.gdb(
        "break work",
        "continue",
        "set scheduler-locking on",
        "thread 2",
        "set var $there = $pc",
        "stepi",
        "print $pc != $there",
        "set scheduler-locking off",
        "thread 1",
        "continue",
        "print number",
        "reverse-stepi",
        "reverse-continue",
        "print number",
        "thread 2",
        "set var $there = $pc",
        "reverse-stepi 2",
        "stepi 2",
        "print $pc == $there",
        "detach",
    )
    moved, number, before, returned = re.findall(r"\$\d+ = (\w+)\n", shown)
    assert (moved, int(number) - int(before), returned) == ("1", 1, "1"), shown
