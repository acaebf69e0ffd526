"""Whole machines with programs of their own: what runs, ends, repeats and can be looked at."""

import io
import threading
import time

import pytest

import anyvirt
from anyvirt.cpu.tracing import Trace
from anyvirt.devices.bus import BusError
from anyvirt.errors import AnyvirtError, GuestTimeoutError, UsageError
from anyvirt.machines.ending import Ending, Reason

TIERS = ["interpreter", "stencil", "auto"]
SMALL = "64M"
LONG = 60


def values(text, name):
    """The numbers that a program has shown under a name."""
    return [int(line.rpartition(" ")[2], 16) for line in text.splitlines() if line.startswith(name + " ")]


@pytest.fixture(params=TIERS)
def tier(request):
    return request.param


@pytest.fixture
def machine(program, tier):
    """A function that makes a machine of a program."""

    def make(name, **options):
        options = {"memory": SMALL, "tier": tier, "seed": 1} | options
        return anyvirt.Machine(kernel=program(name), **options)

    return make


# Running ----------------------------------------------------------------------------------------------------


def test_harts_are_started_interrupt_each_other_and_stop(machine):
    with machine("harts", cpus=4) as m:
        assert m.run(seconds=LONG) == Ending(Reason.POWEROFF)
        assert values(m.console.text, "argument") == [101, 102, 103, 201, 202, 203]
        assert values(m.console.text, "sum") == [2 * 10000 * (1 + 2 + 3)]
        assert "a hart was not stopped" not in m.console.text


def test_what_is_typed_arrives_by_interrupts_however_long_it_is(machine):
    text = "".join(f"line {number} of what is typed;" for number in range(20))
    with machine("echo") as m:
        m.console.expect("ready\n", timeout=LONG)
        m.console.send(text)
        m.console.expect(r"LINE 19 OF WHAT IS TYPED;", timeout=LONG)
        m.console.send(".")
        assert m.run(seconds=LONG).reason is Reason.POWEROFF
        assert text.upper() in m.console.text


def test_an_idle_machine_takes_no_time_of_the_host_s(machine):
    with machine("sleep", cpus=2) as m:
        m.console.expect("asleep", timeout=LONG)
        before = time.process_time()
        assert m.run(seconds=1).reason is Reason.LIMIT
        assert time.process_time() - before < 0.5


def test_a_run_ends_when_somebody_stops_it_or_a_condition_holds(machine):
    with machine("sleep") as m:
        threading.Timer(0.1, m.stop).start()
        assert m.run(seconds=LONG).reason is Reason.STOPPED
        assert m.run(until=lambda: m.clock.now() > 200_000_000).reason is Reason.CONDITION


def test_time_stands_still_between_runs(machine):
    with machine("sleep") as m:
        m.run(seconds=0.05)
        before = m.clock.now()
        time.sleep(0.05)
        assert m.clock.now() == before
        m.run(seconds=0.05)
        assert m.clock.now() - before >= 50_000_000


def test_what_a_device_raises_is_raised_by_the_run(machine):
    class Broken:
        def read(self, offset, size):
            raise ZeroDivisionError

        def write(self, offset, size, value):
            pass

    with machine("hidden") as m:
        m.board.memory.remove(0x10_1000, 0x1000)
        m.board.memory.add_mmio(0x10_1000, 0x1000, Broken())
        with pytest.raises(ZeroDivisionError):
            m.run(seconds=LONG)
        assert not m.is_running


def test_a_reset_begins_anew(machine):
    with machine("print") as m:
        assert m.run(seconds=LONG).reason is Reason.RESET
        assert m.run(seconds=LONG).reason is Reason.RESET
        assert m.console.text.count("printed at once") == 1
        m.reset()
        assert m.run(seconds=LONG).reason is Reason.RESET
        assert m.console.text.count("printed at once") == 2


def test_a_program_in_m_mode_runs_as_firmware(tmp_path, tier):
    from anyvirt.isa.riscv64_system import riscv64_system

    text = (
        "csrrs s0, mhartid, zero\nlui t0, 0x100\nlui t1, 0x5\naddi t1, t1, 0x555\nsw t1, 0(t0)\njal zero, 0"
    )
    image = tmp_path / "firmware.bin"
    image.write_bytes(riscv64_system.assemble(text.replace("jal zero, 0", "wfi"), pc=0x8000_0000))
    with anyvirt.Machine(firmware=image, memory=SMALL, tier=tier, cpus=2) as m:
        assert m.run(seconds=LONG).reason is Reason.POWEROFF
        assert [hart.privilege for hart in m.harts] == [3, 3]


def test_what_is_printed_is_kept_to_a_limit(machine, monkeypatch):
    from anyvirt.machines import console

    monkeypatch.setattr(console, "_KEPT", 100)
    with machine("sleep") as m:
        for number in range(100):
            m.console.output(f"line {number} \N{SNOWMAN}\n".encode())
            assert m.console.expect(r"line (\d+) \N{SNOWMAN}")[1] == str(number)
        assert 100 <= len(m.console.text) <= 200
        m.console.output("\N{SNOWMAN}".encode()[:2])
        m.console.output("\N{SNOWMAN}".encode()[2:] + b"\xff")
        assert m.console.text.endswith("99 \N{SNOWMAN}\n\N{SNOWMAN}\N{REPLACEMENT CHARACTER}")


# Counted runs -----------------------------------------------------------------------------------------------


def snapshot(m):
    return (
        m.clock.now(),
        m.console.text,
        [(hart.pc, hart.privilege, hart.cpu.instructions, list(hart.x)) for hart in m.harts],
        [hart.csr["time"] for hart in m.harts],
        m.board.memory.dirty_pages(),
    )


@pytest.mark.parametrize("cpus", [1, 2])
def test_counted_runs_are_exact_and_repeat(machine, cpus):
    seen = []
    for pieces in ([30_000], [30_000], [12_345, 17_655]):
        with machine("ticks", cpus=cpus) as m:
            for piece in pieces:
                assert m.run(instructions=piece).reason is Reason.LIMIT
            assert sum(hart.cpu.instructions for hart in m.harts) == 30_000
            seen.append(snapshot(m))
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("cpus", [1, 2])
def test_tiers_count_the_same(program, cpus):
    shown = []
    for tier in TIERS:
        with anyvirt.Machine(kernel=program("ticks"), cpus=cpus, memory=SMALL, tier=tier, seed=1) as m:
            assert m.run(instructions=10_000_000).reason is Reason.POWEROFF
            shown.append(snapshot(m))
            assert values(m.console.text, "ticks")[0] > 10
    assert shown[0] == shown[1]


def test_a_hart_that_waits_since_a_counted_run_is_woken_in_real_time(machine):
    with machine("ticks") as m:
        hart = m.harts[0]
        ending = m.run(instructions=10_000_000, until=lambda: hart.is_waiting)
        assert ending.reason is Reason.CONDITION
        assert m.run(seconds=LONG).reason is Reason.POWEROFF


def test_a_machine_that_ran_in_real_time_goes_on_counted(machine):
    with machine("ticks", cpus=2) as m:
        m.run(seconds=LONG, until=lambda: m.harts[1].cpu.pc < 0x8020_0000 or m.clock.now() > 100_000)
        assert m.run(instructions=10_000_000).reason is Reason.POWEROFF


def test_time_leaps_while_all_harts_wait(machine):
    with machine("echo") as m:
        m.console.expect("ready", instructions=1_000_000)
        m.clock.call_at(10 * 10**9, lambda: m.console.send("."))
        assert m.run(instructions=1_000_000).reason is Reason.POWEROFF
        assert m.clock.now() >= 10 * 10**9


def test_a_counted_run_ends_if_nothing_is_going_to_happen(machine):
    with machine("sleep") as m:
        assert m.run(instructions=1_000_000).reason is Reason.IDLE


# Looking at it ----------------------------------------------------------------------------------------------


def test_memory_is_seen_by_physical_and_virtual_addresses(machine):
    with machine("paging") as m:
        assert m.memory[0x8020_0000:0x8020_0004] == m.harts[0].memory[0x8020_0000:0x8020_0004]
        assert m.run(seconds=LONG) == Ending(Reason.FAILURE, code=7)
        hart, address = m.harts[0], 0xFFFF_FFC0_0000_3000
        assert hart.privilege == 1
        assert hart.memory[address : address + 11] == b"what is in "
        hart.memory[address : address + 4] = b"that"
        assert hart.memory[address] == ord("t")
        with pytest.raises(BusError):
            hart.memory[address + 0x1000]
        with pytest.raises(BusError):
            m.memory[0x7000_0000:0x7000_0008]


def test_registers_are_there_by_name(machine):
    with machine("paging", cpus=2) as m:
        m.run(seconds=LONG)
        csr = m.harts[0].csr
        assert csr["satp"] >> 60 == 8
        assert csr["mhartid"] == 0 and m.harts[1].csr["mhartid"] == 1
        assert csr["sstatus"] & 2 == 0
        assert csr["medeleg"] == 0xB1FF
        csr["sscratch"] = 77
        assert csr["sscratch"] == 77
        with pytest.raises(UsageError, match="no control and status register 'nothing'"):
            csr["nothing"]
        status, satp = csr["mstatus"], csr["satp"]
        csr["sstatus"] = 1 << 18 | 1 << 3
        assert csr["mstatus"] & 1 << 18 and csr["mstatus"] & 1 << 3 == status & 1 << 3
        csr["satp"] = 5 << 60
        assert csr["satp"] == satp
        csr["satp"] = 0
        csr["fcsr"], csr["pmpaddr7"], csr["minstret"] = 0xE1, 0x1000, 99
        assert (csr["satp"], csr["frm"], csr["fflags"], csr["pmpaddr7"]) == (0, 7, 1, 0x1000)
        with pytest.raises(UsageError, match="cannot be set"):
            csr["time"] = 0


@pytest.mark.parametrize("limit", [{"seconds": LONG}, {"instructions": 1_000_000}])
def test_breakpoints_and_hooks_are_the_executor_s(machine, limit):
    with machine("sleep") as m:
        hart = m.harts[0]
        entry = m.harts[0].x[6]
        calls = []
        hart.breakpoints.add(entry)
        hart.hooks.at(entry, lambda cpu, address: calls.append(address))
        ending = m.run(**limit)
        assert ending.reason is Reason.HOOK and ending.hart == 0
        assert ending.stop is not None and ending.stop.hit is not None
        assert hart.pc == entry and hart.privilege == 1 and calls == [entry]
        m.console.expect("asleep", timeout=LONG)


@pytest.mark.parametrize("limit", [{"seconds": LONG}, {"instructions": 1_000_000}])
@pytest.mark.parametrize("watched", ["hook", "watchpoint", "block", "trace"])
def test_timers_go_on_while_a_hart_is_watched(tmp_path, tier, limit, watched):
    from anyvirt.isa.riscv64_system import riscv64_system

    uart = 0x1000_0000
    text = """
        lui s0, 0x10000         # the UART
        addi s1, zero, 3
        addi t0, zero, -1
        csrrs zero, menvcfg, t0
        addi t0, zero, 0x20     # the supervisor's timer
        csrrw zero, mie, t0
    again:
        csrrs t0, time, zero
        addi t0, t0, 500
        csrrw zero, stimecmp, t0
    asleep:
        wfi
        csrrs t2, time, zero
        bltu t2, t0, asleep
        addi t1, zero, 0x2e
        sb t1, 0(s0)
        addi s1, s1, -1
        bne s1, zero, again
        lui t0, 0x100           # the finisher
        lui t1, 0x5
        addi t1, t1, 0x555
        sw t1, 0(t0)
        wfi
    """
    image = tmp_path / "firmware.bin"
    image.write_bytes(riscv64_system.assemble(text, pc=0x8000_0000))
    stored = []
    with anyvirt.Machine(firmware=image, memory=SMALL, tier=tier) as m:
        cpu = m.harts[0].cpu
        m.run(instructions=1)
        match watched:
            case "hook":
                cpu.hooks.on_memory(lambda *access: stored.append(access[-1]), uart, uart + 8)
            case "watchpoint":
                cpu.watchpoints.add(uart)
            case "block":
                cpu.hooks.on_block(lambda cpu, pc: None)
            case "trace":
                Trace(cpu, io.StringIO())
        stops = 0
        while (ending := m.run(**limit)).reason is Reason.HOOK:
            stops += 1
        assert ending.reason is Reason.POWEROFF
        assert m.console.text == "..."
        assert stops == (3 if watched == "watchpoint" else 0)
        assert stored == ([0x2E] * 3 if watched == "hook" else [])
        assert m.clock.now() >= 150_000


@pytest.mark.parametrize("limit", [{"seconds": LONG}, {"instructions": 1_000_000}])
def test_no_hart_s_breakpoint_is_lost_when_several_reach_theirs(tmp_path, tier, limit):
    from anyvirt.isa.riscv64_system import riscv64_system

    start, cpus = 0x8000_0000, 4
    image = tmp_path / "firmware.bin"
    image.write_bytes(riscv64_system.assemble("addi t0, zero, 1\nwait: wfi\njal zero, wait", pc=start))
    with anyvirt.Machine(firmware=image, memory=SMALL, tier=tier, cpus=cpus) as m:
        for hart in m.harts:
            hart.breakpoints.add(start)
        reached = [m.run(**limit) for _ in range(cpus)]
        assert {ending.reason for ending in reached} == {Reason.HOOK}
        assert {ending.hart for ending in reached} == set(range(cpus))
        assert m.run(seconds=0.1).reason is Reason.LIMIT


def test_further_devices_can_be_attached(program):
    class Seen:
        def read(self, offset, size):
            return 0x42

        def write(self, offset, size, value):
            pass

        def reset(self):
            pass

    from anyvirt.boards.virt_map import Range

    with anyvirt.Machine(
        kernel=program("sleep"),
        memory=SMALL,
        attach=lambda board: board.attach("seen", Seen(), Range(0x1010_0000, 0x1000)),
    ) as m:
        assert m.memory[0x1010_0000] == 0x42


# Mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name a kernel or firmware"),
        ({"board": "pc"}, "there is no board 'pc'"),
        ({"kernel": "/nowhere/kernel"}, "kernel /nowhere/kernel cannot be read"),
        ({"firmware": "/nowhere/firmware"}, "firmware /nowhere/firmware cannot be read"),
        ({"firmware": __file__, "initrd": "/nowhere/initrd"}, "is for a kernel"),
        ({"firmware": __file__, "memory": "many"}, "'many' is not a size"),
        ({"firmware": __file__, "tier": "warp"}, "no tier 'warp'"),
        ({"firmware": __file__, "cpus": 0}, "1 to 512 CPUs"),
        ({"kernel": __file__}, "no kernel of a format known here"),
    ],
)
def test_mistakes_are_told_in_a_sentence(options, message):
    with pytest.raises(UsageError, match=message):
        anyvirt.Machine(**options)


def test_what_does_not_fit_is_said_to_need_more_memory(program, tmp_path):
    large = tmp_path / "large"
    large.write_bytes(bytes(64 << 20))
    with pytest.raises(UsageError, match="more memory"):
        anyvirt.Machine(kernel=program("sleep"), initrd=large, memory=SMALL)
    with pytest.raises(UsageError, match="not enough RAM"):
        anyvirt.Machine(firmware=large, memory="32M")


def test_what_is_not_printed_is_an_error(machine):
    with machine("sleep") as m:
        with pytest.raises(GuestTimeoutError, match=r"'never'(?s:.*)asleep"):
            m.console.expect("never", timeout=0.3)
        with pytest.raises(UsageError, match="not by both"):
            m.run(seconds=1, instructions=1)
    with machine("print") as m, pytest.raises(AnyvirtError, match=r"ended \(reset\)"):
        m.console.expect("never", timeout=LONG)
