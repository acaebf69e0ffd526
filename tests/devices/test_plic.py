"""The PLIC by its specification: gateways, priorities, thresholds, claims and completions."""

import pytest

from anyvirt.devices.bus import Wire
from anyvirt.devices.plic import MOST_SOURCES, Plic


class Harness:
    """A PLIC with two contexts and sources 1 to 40."""

    def __init__(self, edges=()):
        self.wires = [Wire(), Wire()]
        self.plic = Plic(self.wires, sources=40, edges=edges)

    def priority(self, source, value):
        self.plic.write(4 * source, 4, value)

    def enable(self, context, *sources):
        for word in (0, 1):
            bits = sum(1 << source % 32 for source in sources if source // 32 == word)
            self.plic.write(0x2000 + 0x80 * context + 4 * word, 4, bits)

    def threshold(self, context, value):
        self.plic.write(0x200000 + 0x1000 * context, 4, value)

    def claim(self, context=0):
        return self.plic.read(0x200004 + 0x1000 * context, 4)

    def complete(self, source, context=0):
        self.plic.write(0x200004 + 0x1000 * context, 4, source)

    def drive(self, source, level=True):
        self.plic.sources[source].set(level)

    def pending(self):
        words = [self.plic.read(0x1000 + 4 * word, 4) for word in (0, 1)]
        return {source for source in range(64) if words[source // 32] >> source % 32 & 1}

    @property
    def levels(self):
        return [wire.level for wire in self.wires]


@pytest.fixture
def plic():
    harness = Harness()
    for source in (1, 2, 3, 40):
        harness.priority(source, 1)
    harness.enable(0, 1, 2, 3, 40)
    return harness


def test_an_interrupt_is_claimed_and_completed(plic):
    plic.drive(40)
    assert plic.pending() == {40}
    assert plic.levels == [True, False]
    assert plic.claim() == 40
    assert plic.pending() == set()
    assert plic.levels == [False, False]
    assert plic.claim() == 0
    plic.drive(40, False)
    plic.complete(40)
    assert plic.levels == [False, False]


def test_a_level_that_stays_interrupts_again_after_completion_only(plic):
    plic.drive(1)
    plic.claim()
    plic.drive(1, False)
    plic.drive(1, True)
    assert plic.pending() == set()
    plic.complete(1)
    assert plic.pending() == {1}
    assert plic.claim() == 1


def test_each_edge_is_a_request():
    plic = Harness(edges=[3])
    plic.priority(3, 1)
    plic.enable(0, 3)
    plic.drive(3)
    assert plic.claim() == 3
    plic.complete(3)
    assert plic.levels == [False, False] and plic.pending() == set()
    plic.drive(3, False)
    plic.drive(3)
    assert plic.claim() == 3
    plic.drive(3, False)
    plic.drive(3)
    assert plic.pending() == {3} and plic.levels == [False, False] and plic.claim() == 0
    plic.complete(3)
    assert plic.levels == [True, False]
    plic.drive(3, False)
    assert plic.claim() == 3
    plic.drive(3)
    plic.drive(3, False)
    plic.complete(3)
    assert plic.levels == [False, False] and plic.claim() == 0


def test_a_request_that_was_forwarded_stays_when_the_level_falls(plic):
    plic.drive(1)
    plic.drive(1, False)
    assert plic.claim() == 1


def test_the_highest_priority_goes_first_then_the_lowest_number(plic):
    plic.priority(3, 7)
    for source in (40, 2, 3, 1):
        plic.drive(source)
    assert [plic.claim() for _ in range(5)] == [3, 1, 2, 40, 0]


def test_priority_0_never_interrupts(plic):
    plic.priority(1, 0)
    plic.drive(1)
    assert plic.levels == [False, False]
    assert plic.claim() == 0
    plic.priority(1, 2)
    assert plic.levels == [True, False]


def test_a_threshold_masks_interrupts_but_not_claims(plic):
    plic.threshold(0, 1)
    plic.drive(2)
    assert plic.levels == [False, False]
    assert plic.claim() == 2
    plic.complete(2)
    plic.threshold(0, 0)
    assert plic.levels == [True, False]


def test_each_context_has_its_own_enables(plic):
    plic.enable(1, 2)
    plic.drive(2)
    assert plic.levels == [True, True]
    assert plic.claim(1) == 2
    assert plic.levels == [False, False]
    assert plic.claim(0) == 0


def test_completion_of_what_is_not_enabled_for_the_target_is_ignored(plic):
    plic.drive(2)
    plic.claim()
    for number in (0, 3, 41, 1024, 2**32 - 1):
        plic.complete(number)
    plic.complete(2, context=1)
    assert plic.pending() == set()
    plic.complete(2)
    assert plic.pending() == {2}


def test_registers_keep_what_they_have_bits_for(plic):
    plic.priority(5, 2**32 - 1)
    plic.threshold(1, 2**32 - 1)
    assert plic.plic.read(20, 4) == 7
    assert plic.plic.read(0x201000, 4) == 7
    plic.plic.write(0x2080, 8, 2**64 - 1)
    assert plic.plic.read(0x2080, 8) == (1 << 41) - 2
    plic.plic.write(0, 4, 7)
    plic.plic.write(0x1000, 4, 2**32 - 1)
    assert plic.plic.read(0, 4) == 0
    assert plic.pending() == set()


def test_reset_forgets_everything_but_what_is_driven(plic):
    plic.drive(1)
    plic.drive(2)
    plic.claim()
    plic.drive(2, False)
    plic.plic.reset()
    assert plic.levels == [False, False]
    assert plic.pending() == {1}
    plic.enable(0, 1)
    plic.priority(1, 1)
    assert plic.claim() == 1


def test_a_device_may_be_restored_before_or_after(plic):
    plic.drive(1)
    plic.drive(2)
    plic.claim()
    state = plic.plic.save_state()
    for order in ("before", "after"):
        other = Harness()
        if order == "before":
            other.drive(1)
            other.drive(2)
        other.plic.load_state(state)
        if order == "after":
            other.drive(1)
            other.drive(2)
        assert other.plic.save_state() == state
        assert other.levels == [True, False]


@pytest.mark.parametrize("sources", [0, MOST_SOURCES + 1])
def test_numbers_of_sources_that_no_plic_has(sources):
    with pytest.raises(ValueError, match="1 to 1023"):
        Plic([], sources=sources)
