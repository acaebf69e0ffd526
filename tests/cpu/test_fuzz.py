"""Hostile programs for some seconds, and that the watch over them sees what it is there for.

`python -m tests.cpu.fuzz` runs as long as one likes.
"""

import ctypes
import signal
import sys
import time

import pytest

from . import fuzz
from .fuzz_cases import Kind, make_case
from .tiers import EXECUTORS, NAMES

SECONDS = 2.0
FIRST_SEED = 1


@pytest.mark.parametrize("executor", EXECUTORS, ids=NAMES)
def test_hostile_programs(executor):
    watch = fuzz.Watch(FIRST_SEED, None, [executor])
    watch.run(SECONDS)
    assert watch.report() == []
    assert watch.cases > 0
    assert sum(watch.reasons.values()) > watch.cases


@pytest.mark.slow
@pytest.mark.parametrize("translate", [False, True], ids=["cold", "translated"])
def test_hostile_programs_in_all_executors_at_once(translate):
    watch = fuzz.Watch(1_000_000, None, EXECUTORS, translate=translate)
    watch.run(60)
    assert watch.report() == []


def test_a_seed_says_everything_about_a_case():
    assert [make_case(seed) for seed in range(20)] == [make_case(seed) for seed in range(20)]


@pytest.mark.parametrize("kind", list(Kind))
def test_cases_of_every_kind_get_somewhere(kind):
    """Most programs that fault at once would prove little."""
    executed = 0
    for seed in range(30):
        subject = fuzz.Subject("interpreter", "flat", make_case(seed, kind))
        for _ in range(20):
            if not subject.resume(subject.cpu.run(50)):
                break
        executed += subject.cpu.instructions
    assert executed > 30 * (3 if kind is Kind.NOISE else 50)


# What the watch would notice ----------------------------------------------------------------------------


def test_a_changed_canary_is_noticed():
    canaries = fuzz.Canaries()
    canaries.plant()
    canaries.check()
    (place,) = canaries._places
    ctypes.c_char.from_address(place + 1000).value = b"!"
    with pytest.raises(fuzz.Finding, match="memory of the host"):
        canaries.check()
    canaries.pull()


def test_canaries_stand_at_both_sides_of_a_guest():
    subject = fuzz.Subject("interpreter", "flat", make_case(1))
    canaries = fuzz.Canaries()
    canaries.surround(subject.memory)
    before = subject.memory.base - fuzz.guest_memory.GUARD_SIZE
    after = subject.memory.base + subject.memory.size + fuzz.guest_memory.GUARD_SIZE
    for place in canaries._places:
        assert place + fuzz._CANARY_SIZE == before or place == after
    canaries.pull()


def test_another_state_than_the_references_is_noticed(monkeypatch):
    class Wrong(fuzz.ReferenceExecutor):
        def run(self, max_instructions=None):
            stop = super().run(max_instructions)
            self.x[7] ^= 1
            return stop

    monkeypatch.setattr(fuzz, "ReferenceExecutor", Wrong)
    with pytest.raises(fuzz.Finding, match=r"another state.*x: \[7\]"):
        fuzz.run_case(make_case(1, Kind.MIX), [("interpreter", "flat")], fuzz.Canaries())


def test_a_changed_read_only_page_is_noticed():
    case = make_case(1, Kind.MIX)
    subject = fuzz.Subject("interpreter", "flat", case)
    code = case.mapped[0]
    subject.memory.protect(code.start, fuzz.PAGE, 3)
    subject.memory.write(code.start, bytes(8))
    with pytest.raises(fuzz.Finding, match="was written in spite of"):
        subject.check_protected()


def worker(monkeypatch, code):
    """A watch whose worker is a Python program of ours."""
    popen = fuzz.subprocess.Popen
    monkeypatch.setattr(
        fuzz.subprocess, "Popen", lambda command, **rest: popen((sys.executable, "-c", code), **rest)
    )
    return fuzz.Watch(5, None, EXECUTORS[:1], timeout=1.0)


def test_a_crash_is_noticed_with_its_seed(monkeypatch):
    watch = worker(monkeypatch, "print('{\"begin\": 5}', flush=True); import os; os.kill(os.getpid(), 11)")
    watch.run(0.1)
    assert watch.findings[5].startswith(f"the process ended with status {-signal.SIGSEGV}")
    assert watch.seed == 6


def test_a_hang_is_noticed_and_ended(monkeypatch):
    code = "print('{\"begin\": 5}', flush=True); import time; time.sleep(600)"
    watch = worker(monkeypatch, code)
    begin = time.monotonic()
    watch.run(0.1)
    assert time.monotonic() - begin < 30
    assert watch.report() == ["1 times: it hung for 1.0 seconds\n  seeds 5"]


def test_changed_code_is_comparable_only_after_a_fence():
    subject = fuzz.Subject(None, "flat", make_case(1, Kind.REWRITTEN))
    stale = fuzz.StaleCode(subject)
    subject.memory.map(0x70000, fuzz.PAGE, 7)
    nop, fence_i, ebreak = 0x13, 0x100F, 0x100073
    words = (fence_i, nop, ebreak)
    subject.memory.write(0x70000, b"".join(word.to_bytes(4, "little") for word in words))
    subject.cpu._processor.synchronize_code()
    subject.cpu.pc = 0x70000
    assert subject.cpu.run(10).reason == fuzz.StopReason.BREAKPOINT
    assert not stale.was_executed
    subject.memory.write(0x70004, nop.to_bytes(4, "little"))
    subject.cpu.pc = 0x70000
    subject.cpu.run(10)
    assert not stale.was_executed
    subject.memory.write(0x70004, nop.to_bytes(4, "little"))
    subject.cpu.pc = 0x70004
    subject.cpu.run(10)
    assert stale.was_executed


def test_a_finding_is_kept_with_its_seed(monkeypatch):
    watch = worker(monkeypatch, 'print(\'{"begin": 5}\\n{"found": "a mouse", "seed": 5}\', flush=True)')
    watch.run(0.05)
    assert watch.findings == {5: "a mouse"}
