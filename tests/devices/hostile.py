"""Guests that do anything to a chip: any access, at any time, saved and restored in between."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anyvirt.devices.bus import State
from anyvirt.devices.clock import VirtualClock

SIZES = (1, 2, 4, 8)
ACCESS_SIZES = st.sampled_from(SIZES)
WORDS = st.integers(0, 2**64 - 1)
VALUES = st.one_of(st.integers(0, 255), st.integers(0, 2**32 - 1), WORDS)
DURATIONS = st.one_of(st.integers(0, 2_000_000), st.integers(0, 10**12))


def is_plain(value):
    """Whether it is one of the values that a state may consist of."""
    match value:
        case dict():
            return all(type(name) is str and is_plain(part) for name, part in value.items())
        case list():
            return all(is_plain(part) for part in value)
    return type(value) in (int, bool, str, bytes) or value is None


class Bench:
    """A chip on a bench: its clock, and what it does to its surroundings."""

    def __init__(self, now: int = 0) -> None:
        self.clock = VirtualClock(now)
        self.wires = []
        """Those that it drives."""
        self.device = None

    def levels(self):
        """What it drives."""
        return [wire.level for wire in self.wires]


class HostileGuest(RuleBasedStateMachine):
    """Subclasses say which bench it is, and where something is to be found.

    Twins are restored from the first one's state, and then have to do as it does.
    """

    bench: type[Bench]
    interesting: tuple[int, ...]
    size: int

    def __init__(self):
        super().__init__()
        self.first = self.bench()
        self.twin = None

    @property
    def benches(self):
        return [self.first] if self.twin is None else [self.first, self.twin]

    def all_do(self, action):
        """Do something with each of them; the same has to come of it."""
        results = [action(bench) for bench in self.benches]
        assert all(result == results[0] for result in results)
        return results[0]

    @rule(data=st.data(), size=ACCESS_SIZES)
    def load(self, data, size):
        offset = data.draw(self.offsets())
        value = self.all_do(lambda bench: bench.device.read(offset, size))
        assert type(value) is not bool
        assert isinstance(value, int)
        assert 0 <= value < 1 << 8 * size

    @rule(data=st.data(), size=ACCESS_SIZES, value=VALUES)
    def store(self, data, size, value):
        offset = data.draw(self.offsets())
        self.all_do(lambda bench: bench.device.write(offset, size, value & (1 << 8 * size) - 1))

    @rule(duration=DURATIONS)
    def pass_time(self, duration):
        self.all_do(lambda bench: bench.clock.advance_to(bench.clock.now() + duration))

    @rule()
    def reset(self):
        self.all_do(lambda bench: bench.device.reset())

    @rule()
    def migrate(self):
        state = self.first.device.save_state()
        assert is_plain(state)
        self.twin = self.bench(self.first.clock.now())
        self.twin.device.load_state(state)
        assert self.twin.device.save_state() == state

    @precondition(lambda self: self.twin is not None)
    @rule()
    def save_both(self):
        self.all_do(lambda bench: bench.device.save_state())

    @invariant()
    def the_wires_agree(self):
        self.all_do(lambda bench: bench.levels())

    def offsets(self):
        """Anywhere, but often where something is."""
        return st.one_of(st.sampled_from(self.interesting), st.integers(0, self.size - 1))


def damaged(state: State):
    """Every state that differs from one in a single value that cannot be right."""
    for name in state:
        yield {other: value for other, value in state.items() if other != name}
        for wrong in (None, "text", -1, 1 << 70, [], [None], {}, b"\x00" * 3, [1 << 70] * 3):
            if wrong != state[name]:
                yield {**state, name: wrong}
