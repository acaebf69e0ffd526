"""States on their way back: each value is checked, and what does not fit is named."""

import pytest

from anyvirt.devices.bus import StateError
from anyvirt.devices.saved_state import SavedState

STATE = {"version": 3, "count": 5, "list": [1, 2], "flag": True, "data": b"abc"}


def test_what_fits_is_returned():
    saved = SavedState(STATE, 3, "chip")
    assert saved.number("count", 3) == 5
    assert saved.numbers("list", 2, 2) == saved.some_numbers("list", 4, 2) == [1, 2]
    assert saved.flag("flag") is True
    assert saved.data("data", 3) == b"abc"
    assert saved.value("data") == b"abc"


@pytest.mark.parametrize(
    "ask",
    [
        lambda saved: saved.number("count", 2),
        lambda saved: saved.number("flag", 8),
        lambda saved: saved.number("missing", 8),
        lambda saved: saved.numbers("list", 3, 8),
        lambda saved: saved.numbers("list", 2, 1),
        lambda saved: saved.some_numbers("list", 1, 8),
        lambda saved: saved.some_numbers("count", 1, 8),
        lambda saved: saved.flag("count"),
        lambda saved: saved.data("data", 2),
        lambda saved: saved.data("list", 2),
    ],
)
def test_what_does_not_fit_is_refused(ask):
    with pytest.raises(StateError, match=r"the saved state of chip has no \w+ that fits"):
        ask(SavedState(STATE, 3, "chip"))


def test_other_versions_are_refused():
    with pytest.raises(StateError, match="version 3, not 4"):
        SavedState(STATE, 4, "chip")
