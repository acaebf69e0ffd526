"""Recordings and going back: a machine comes to the same states again, forwards and backwards."""

import json
import shutil
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anyvirt
from anyvirt.boards.virt_map import RAM_START
from anyvirt.cpu.watchpoints import AccessKind
from anyvirt.errors import UsageError
from anyvirt.isa.riscv64_system import riscv64_system
from anyvirt.machines.ending import Reason
from anyvirt.machines.inputs import ReplayError
from anyvirt.machines.recording import state_digest
from anyvirt.machines.snapshot import SnapshotError

TIERS = ["interpreter", "auto"]
LONG = 60
COUNT = 0x8001_0000
COUNTER = """
    auipc s0, 0x10
loop:
    addi s1, s1, 1
    sd s1, 0(s0)
    addi t1, t1, 3
    jal zero, loop
"""
"""Four instructions a round, behind six of the boot ROM and one."""
FIRST, ROUND = 7, 4


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    path = tmp_path_factory.mktemp("counter") / "counter.bin"
    path.write_bytes(riscv64_system.assemble(COUNTER, RAM_START))
    return path


@pytest.fixture
def counting(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", seed=1)
    m.keep_history(every=1000)
    return m


def at(m):
    return m.position.instructions, m.harts[0].pc, list(m.harts[0].x), m.memory[COUNT : COUNT + 8]


# Where runs end ---------------------------------------------------------------------------------------------

INTERRUPTED = """
    auipc t0, 0
    addi t0, t0, 88
    csrrw zero, mtvec, t0
    lui t1, 0xc000          # the PLIC: priority of the UART, enabled for M-mode
    addi t2, zero, 1
    sw t2, 40(t1)
    lui t3, 0xc002
    addi t2, zero, 0x400
    sw t2, 0(t3)
    addi t2, zero, 0x400
    slli t2, t2, 1
    csrrs zero, mie, t2
    csrrsi zero, mstatus, 8
    lui t4, 0x10000
    addi t5, zero, 2
    sb t5, 1(t4)            # the UART has an interrupt from here on
    addi s1, s1, 1
    addi s1, s1, 2
    addi s1, s1, 4
    addi s1, s1, 8
    jal zero, stop
stop:
    jal zero, stop
    csrrs s2, mepc, zero
    add s3, s3, s1
    sb zero, 1(t4)
    lui t6, 0xc200
    lw s4, 4(t6)
    sw s4, 4(t6)
    sb t5, 1(t4)
    addi s1, s1, 16
    addi s1, s1, 32
    mret
"""


@pytest.mark.parametrize("tier", TIERS)
def test_it_makes_no_difference_where_runs_end(tmp_path, tier):
    path = tmp_path / "interrupted.bin"
    path.write_bytes(riscv64_system.assemble(INTERRUPTED, RAM_START))

    def make():
        return anyvirt.Machine(firmware=path, memory="4M", tier=tier, seed=1)

    whole, steps, pair = make(), make(), make()
    whole.run(instructions=120)
    assert whole.harts[0].x[18] and whole.harts[0].x[20] == 10
    for _ in range(120):
        steps.run(instructions=1)
    assert state_digest(steps) == state_digest(whole)
    pair.keep_history(every=1000)
    pair.run(instructions=120)
    end = state_digest(pair)
    for number in range(1, 119):
        pair.reverse_step(number)
        pair.run(instructions=number)
        assert state_digest(pair) == end


# Recordings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_recording_comes_to_the_same_state_in_any_tier_and_pieces(program, tmp_path, cpus):
    with anyvirt.Machine(kernel=program("ticks"), memory="64M", cpus=cpus, tier="interpreter") as m:
        m.run(instructions=12_345)
        with m.record(tmp_path / "r", every=10_000):
            m.run(instructions=50_000)
            m.run(instructions=777)
        state = state_digest(m)
        m.run(instructions=5)
    for tier in TIERS:
        again = anyvirt.Machine.replay(tmp_path / "r", tier=tier)
        again.run(instructions=33_333)
        assert again.replay_to_end().reason is Reason.LIMIT
        assert state_digest(again) == state
        assert again.position.instructions == 12_345 + 50_777


def echoing(m):
    """Type at odd moments: between runs, while one is under way, and as an answer to what is printed."""
    m.console.on_output = lambda data: m.console.send("x") if b"L" in data else None
    m.console.expect("ready", instructions=1_000_000)
    m.console.send("one line, and what does not fit into the queue at once; ")
    m.run(instructions=300)
    left = [None]
    m.run(instructions=20_000, until=lambda: left and (left.pop(), m.console.send("from a condition; "))[0])
    m.console.send("the last")
    m.run(instructions=50_000)
    m.console.on_output = None


@pytest.mark.parametrize("every", [500, 1 << 40])
def test_what_was_typed_comes_again_where_it_came(program, tmp_path, every):
    with anyvirt.Machine(kernel=program("echo"), memory="64M", tier="stencil") as m:
        recording = m.record(tmp_path / "r", every=every)
        echoing(m)
        recording.close()
        recording.close()
        text, state = m.console.text, state_digest(m)
        assert "FROM A CONDITION; " in text and "THE LAST" in text and "X" in text
    again = anyvirt.Machine.replay(tmp_path / "r", tier="interpreter")
    again.replay_to_end()
    assert again.console.text == text and state_digest(again) == state
    again.console.send(".")
    assert again.run(instructions=100_000).reason is Reason.POWEROFF


def test_what_another_thread_types_comes_again(program, tmp_path):
    with anyvirt.Machine(kernel=program("ticks"), memory="64M", tier="stencil") as m:
        with m.record(tmp_path / "r"):
            stop = threading.Event()

            def type_on():
                while not stop.wait(0.0002):
                    m.console.send("x")

            thread = threading.Thread(target=type_on)
            thread.start()
            try:
                while m.run(instructions=997).reason is Reason.LIMIT:
                    pass
            finally:
                stop.set()
                thread.join()
    again = anyvirt.Machine.replay(tmp_path / "r", tier="interpreter")
    again.replay_to_end()
    assert state_digest(again) == state_digest(m)


def with_entropy(holder, source):
    from anyvirt.boards.virt_map import Range

    class Dice:
        """A register that the host throws dice for."""

        def read(self, offset, size):
            data = holder[-1].inputs.pull("dice", source, size)
            return int.from_bytes(data, "little")

        def write(self, offset, size, value):
            pass

        def reset(self):
            pass

        def save_state(self):
            return {"version": 1}

        def load_state(self, state):
            pass

    return lambda board: board.attach("dice", Dice(), Range(0x1000_9000, 8))


def test_answers_of_the_host_are_the_same_again(tmp_path):
    program = tmp_path / "dice.bin"
    program.write_bytes(
        riscv64_system.assemble(
            "lui s0, 0x10009\nloop: ld t0, 0(s0)\nadd t1, t1, t0\nslli t1, t1, 1\njal zero, loop", RAM_START
        )
    )
    import os

    holder = []
    m = anyvirt.Machine(
        firmware=program, memory="16M", tier="interpreter", attach=with_entropy(holder, os.urandom)
    )
    holder.append(m)
    with m.record(tmp_path / "r"):
        m.run(instructions=4000)
        m.keep_history(every=500)
        m.run(instructions=4000)

    def nobody(count):
        raise AssertionError("the host is asked again")

    again = anyvirt.Machine.replay(tmp_path / "r", tier="stencil", attach=with_entropy(holder, nobody))
    holder.append(again)
    again.replay_to_end()
    assert again.harts[0].x[6] == m.harts[0].x[6] != 0
    again.forget_history()
    holder.append(m)
    value = m.harts[0].x[6]
    m.reverse_step(3000)
    assert m.harts[0].x[6] != value
    m.run(instructions=3000)
    assert m.harts[0].x[6] == value


def test_inputs_have_one_receiver(counter):
    m = anyvirt.Machine(firmware=counter, memory="4M", tier="interpreter", seed=1)
    got = []
    with pytest.raises(UsageError, match="nobody receives"):
        m.inputs.push("net", b"x")
    m.inputs.receive("net", got.append)
    with pytest.raises(UsageError, match="received already"):
        m.inputs.receive("net", got.append)
    m.keep_history(every=100)
    m.run(instructions=150)
    m.inputs.push("net", b"x")
    m.run(instructions=150)
    assert got == [b"x"]
    m.reverse_step(200)
    m.run(instructions=200)
    assert got == [b"x", b"x"]


def test_a_replay_that_goes_another_way_is_found(counter, tmp_path):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", seed=1)
    with m.record(tmp_path / "r"):
        m.run(instructions=1000)
    again = anyvirt.Machine.replay(tmp_path / "r", tier="interpreter")
    again.harts[0].x[6] = 1
    with pytest.raises(ReplayError, match="another state"):
        again.replay_to_end()
    with pytest.raises(UsageError, match="not one that is replayed"):
        m.replay_to_end()


def test_recordings_say_what_they_cannot(counter, tmp_path):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", seed=1)
    with m.record(tmp_path / "r", every=100):
        with pytest.raises(UsageError, match="counted instructions"):
            m.run(seconds=1)
        with pytest.raises(UsageError, match="recorded cannot be reset"):
            m.reset()
        m.run(instructions=1000)
    with pytest.raises(UsageError, match="cannot be made: File exists"):
        m.record(tmp_path / "r")
    m.run(seconds=0.01)
    again = anyvirt.Machine.replay(tmp_path / "r", tier="interpreter")
    with pytest.raises(UsageError, match="cannot be recorded"):
        again.record(tmp_path / "s")
    again.console.send("something else")
    with again.record(tmp_path / "s"):
        pass
    (tmp_path / "mine").mkdir()
    monkey = tmp_path / "mine" / "r"
    with pytest.raises(UsageError, match="cannot be read"):
        anyvirt.Machine.replay(monkey)


@pytest.fixture(scope="module")
def recorded(program, tmp_path_factory):
    directory = tmp_path_factory.mktemp("recorded") / "r"
    with anyvirt.Machine(kernel=program("echo"), memory="64M", tier="interpreter", seed=1) as m:
        with m.record(directory, every=5000):
            m.console.expect("ready", instructions=1_000_000)
            m.console.send("some text")
            m.run(instructions=20_000)
    return directory


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_byte_of_a_recording_that_was_changed_is_found(recorded, tmp_path_factory, data):
    content = (recorded / "inputs.jsonl").read_bytes()
    changed = bytearray(content)
    if data.draw(st.booleans()):
        del changed[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    directory = tmp_path_factory.mktemp("changed")
    shutil.copytree(recorded / "start", directory / "start")
    (directory / "inputs.jsonl").write_bytes(changed)
    try:
        with pytest.raises((SnapshotError, ReplayError)) as error:
            anyvirt.Machine.replay(directory, tier="interpreter").replay_to_end()
        assert "\n" not in str(error.value)
    finally:
        shutil.rmtree(directory)


def test_a_recording_that_was_not_ended_is_refused(recorded, tmp_path):
    shutil.copytree(recorded, tmp_path / "r")
    lines = (tmp_path / "r/inputs.jsonl").read_bytes().splitlines(keepends=True)
    assert json.loads(lines[0])["format"] == "anyvirt recording"
    (tmp_path / "r/inputs.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(SnapshotError, match="was not ended"):
        anyvirt.Machine.replay(tmp_path / "r")


# Going back -------------------------------------------------------------------------------------------------


def test_steps_back_are_the_steps_forward(counting):
    places = [at(counting)]
    for _ in range(60):
        counting.run(instructions=73)
        places.append(at(counting))
    for place in reversed(places[30:-1]):
        assert counting.reverse_step(73).reason is Reason.LIMIT
        assert at(counting) == place
    for place in places[31:]:
        counting.run(instructions=73)
        assert at(counting) == place
    assert counting.reverse_step(60 * 73 + 1).reason is Reason.BEGINNING
    assert at(counting) == places[0]


@settings(max_examples=6, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), max_size=12))
def test_any_way_there_and_back_is_the_same(counter, moves):
    m = anyvirt.Machine(firmware=counter, memory="4M", tier="interpreter", seed=1)
    m.keep_history(every=700, most=6)
    position = 0
    for forward, count in moves:
        if forward:
            m.run(instructions=count)
            position += count
        else:
            m.reverse_step(count)
            position = max(position - count, 0)
        rounds = max(position - FIRST, 0)
        assert m.position.instructions == position
        assert m.harts[0].x[9] == (rounds + ROUND - 1) // ROUND


def test_single_steps_are_steps_like_others(counting):
    hart = counting.harts[0]
    counting.run(instructions=500)
    place = at(counting)
    counting.run(instructions=7)
    later = at(counting)
    counting.reverse_step(7)
    for _ in range(7):
        assert counting.step(hart).reason is Reason.LIMIT
    assert at(counting) == later
    counting.reverse_step(7)
    assert at(counting) == place


def test_one_cpu_is_stepped_while_others_stand(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", seed=1, cpus=3)
    m.run(instructions=25_000)
    before = [hart.cpu.instructions for hart in m.harts]
    m.step(m.harts[1])
    m.step(m.harts[1], others=[m.harts[2]])
    m.run(instructions=5, harts=[m.harts[0]])
    after = [hart.cpu.instructions for hart in m.harts]
    assert [new - old for old, new in zip(before, after, strict=True)] == [5, 2, 1]
    m.keep_history()
    with pytest.raises(UsageError, match="with all of its CPUs"):
        m.step(m.harts[1])
    m.run(instructions=10)


def test_steps_of_several_cpus_are_those_of_any_run(counter, tmp_path):
    def make():
        m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", seed=1, cpus=2)
        m.run(instructions=500)
        return m

    m, whole = make(), make()
    one, two = m.harts
    with m.record(tmp_path / "steps"):
        for stepped, other, count in ((one, two, 3), (two, one, 5), (one, two, 2)):
            for _ in range(count):
                before = stepped.cpu.instructions
                assert m.step(stepped, others=[other]).reason is Reason.LIMIT
                assert stepped.cpu.instructions == before + 1
    with whole.record(tmp_path / "whole"):
        whole.run(instructions=m.position.instructions - whole.position.instructions)
    assert state_digest(whole) == state_digest(m)
    again = anyvirt.Machine.replay(tmp_path / "steps", tier="stencil")
    again.step(again.harts[1], others=[again.harts[0]])
    assert again.replay_to_end().reason is Reason.LIMIT
    assert state_digest(again) == state_digest(m)


@pytest.mark.parametrize("tier", TIERS)
def test_breakpoints_are_reached_backwards(counter, tier):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier=tier, seed=1)
    m.keep_history(every=1000)
    hart, calls = m.harts[0], []
    m.run(instructions=2600)
    breakpoint = hart.breakpoints.add(RAM_START + 8)
    hart.hooks.at(RAM_START + 12, lambda *_: calls.append(1))
    before = m.position.instructions
    for number in (0, 1, 2, 3):
        ending = m.reverse_continue()
        assert ending.reason is Reason.HOOK and ending.stop.hit is breakpoint and ending.hart == 0
        assert hart.pc == RAM_START + 8
        expected = (before - FIRST - 2) // ROUND * ROUND + FIRST + 1 - number * ROUND
        assert m.position.instructions == expected
    assert not calls and breakpoint.hits == 0
    # The next run does not stop where it begins.
    assert m.run(instructions=1000).stop.hit is breakpoint
    assert m.position.instructions == expected + ROUND
    assert len(calls) == 1
    breakpoint.remove()
    assert m.reverse_continue().reason is Reason.BEGINNING
    assert m.position.instructions == 0


def test_one_hart_is_stepped_back_and_the_others_go_with_it(counter):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", seed=1, cpus=2)
    m.keep_history(every=3000)
    places = []
    for _ in range(4):
        m.run(instructions=9_000)
        for hart, other in (m.harts, m.harts[::-1]):
            m.step(hart, others=[other])
            places.append((hart, hart.cpu.instructions, m.position, state_digest(m)))
    for hart, instructions, position, digest in reversed(places):
        assert m.reverse_step(hart.cpu.instructions - instructions or 1, hart=hart).reason is Reason.LIMIT
        if m.position != position:
            m.step(hart, others=[other for other in m.harts if other is not hart])
        assert (m.position, state_digest(m)) == (position, digest)
    assert m.reverse_step(1 << 40, hart=m.harts[1]).reason is Reason.BEGINNING
    assert m.position.instructions == 0


@pytest.mark.parametrize("reason", [Reason.CONDITION, Reason.STOPPED])
def test_looking_for_a_breakpoint_can_be_given_up(counting, reason):
    counting.run(instructions=5300)
    place, looks = at(counting), []

    def given_up():
        looks.append(counting.position)
        if len(looks) > 2 and reason is Reason.STOPPED:
            counting.stop()
        return len(looks) > 2 and reason is Reason.CONDITION

    counting.harts[0].breakpoints.add(RAM_START)
    assert counting.reverse_continue(until=given_up).reason is reason
    assert at(counting) == place and len(looks) == 3
    assert counting.reverse_continue(until=lambda: False).reason is Reason.HOOK
    assert counting.position.instructions == 6


def test_a_breakpoint_far_back_is_found(counting):
    hart = counting.harts[0]
    counting.run(instructions=7700)
    hart.breakpoints.add(RAM_START)
    ending = counting.reverse_continue()
    assert ending.reason is Reason.HOOK and counting.position.instructions == 6
    assert counting.reverse_continue().reason is Reason.BEGINNING


def test_a_watchpoint_is_reached_in_front_of_the_store(counting):
    hart = counting.harts[0]
    counting.run(instructions=5000)
    value = int.from_bytes(counting.memory[COUNT : COUNT + 8], "little")
    watchpoint = hart.watchpoints.add(COUNT, 8, AccessKind.WRITE)
    for number in range(3):
        ending = counting.reverse_continue()
        assert ending.stop.hit is watchpoint and ending.stop.address == COUNT
        assert hart.pc == RAM_START + 8
        found = int.from_bytes(counting.memory[COUNT : COUNT + 8], "little")
        assert found == value - 1 - number
    assert counting.run(instructions=100).stop.hit is watchpoint
    assert int.from_bytes(counting.memory[COUNT : COUNT + 8], "little") == found + 1


@pytest.mark.parametrize("cpus", [1, 2])
def test_devices_interrupts_and_time_go_back_too(program, cpus):
    with anyvirt.Machine(kernel=program("ticks"), memory="64M", cpus=cpus, tier="stencil", seed=1) as m:
        m.keep_history(every=7_000)
        states = []
        while m.run(instructions=9_999).reason is Reason.LIMIT:
            states.append((m.position, state_digest(m)))
        end = m.position, m.console.text, state_digest(m)
        assert m.ended is not None and len(states) > 5
        for position, digest in reversed(states):
            m.reverse_step(m.position.instructions - position.instructions)
            assert (m.position, state_digest(m)) == (position, digest)
            assert m.ended is None
        assert m.run(instructions=10_000_000).reason is Reason.POWEROFF
        assert (m.position, m.console.text, state_digest(m)) == end


def test_what_was_typed_comes_again_after_going_back(program):
    with anyvirt.Machine(kernel=program("echo"), memory="64M", tier="interpreter", seed=1) as m:
        m.keep_history(every=2000)
        printed = []
        m.console.expect("ready", instructions=1_000_000)
        m.run(instructions=2000)
        ready = m.position
        m.console.on_output = printed.append
        m.console.send("what was typed")
        m.run(instructions=30_000)
        assert m.console.text.endswith("WHAT WAS TYPED")
        end = m.position
        before = len(printed)
        m.reverse_step(end.instructions - 50)
        assert m.position.instructions == 50 and "TYPED" not in m.console.text and len(printed) == before
        m.run_to(end)
        assert m.console.text.endswith("WHAT WAS TYPED") and len(printed) > before
        m.reverse_step(end.instructions - ready.instructions)
        assert not m.console.text.endswith("TYPED")
        m.console.send("; something else.")
        assert m.run(instructions=1_000_000).reason is Reason.POWEROFF
        assert m.console.text.endswith("; SOMETHING ELSE.")


def test_a_replay_can_go_back(recorded):
    m = anyvirt.Machine.replay(recorded, tier="stencil")
    m.keep_history()
    m.replay_to_end()
    digest, end = state_digest(m), m.position
    m.reverse_step(end.instructions // 2)
    assert m.position.instructions == -(-end.instructions // 2)
    assert m.replay_to_end().reason is Reason.LIMIT
    assert (state_digest(m), m.position) == (digest, end)
    other = anyvirt.Machine.replay(recorded, tier="stencil")
    other.run(instructions=10)
    with pytest.raises(UsageError, match="begins where the recording does"):
        other.keep_history()


def test_states_long_ago_become_fewer(counter):
    m = anyvirt.Machine(firmware=counter, memory="4M", tier="interpreter", seed=1)
    m.keep_history(every=100, most=8)
    m.run(instructions=10_000)
    assert len(m.history._checkpoints) <= 8 and m.history.beginning.instructions == 0
    m.reverse_step(9_876)
    assert m.harts[0].x[9] == (124 - FIRST + ROUND - 1) // ROUND
    m.run(instructions=9_876)
    assert m.position.instructions == 10_000


def test_a_history_says_what_it_cannot(counter, tmp_path):
    m = anyvirt.Machine(firmware=counter, memory="16M", tier="interpreter", seed=1)
    with pytest.raises(UsageError, match="keep_history begins one"):
        m.reverse_step()
    with pytest.raises(UsageError, match="two states or more"):
        m.keep_history(most=1)
    m.keep_history()
    with pytest.raises(UsageError, match="one instruction or more"):
        m.reverse_step(0)
    with pytest.raises(UsageError, match="counted instructions"):
        m.run(seconds=1)
    with m.record(tmp_path / "r"):
        m.run(instructions=10)
        with pytest.raises(UsageError, match="close the recording"):
            m.reverse_step()
    m.reverse_step()
    m.forget_history()
    m.run(seconds=0.01)
