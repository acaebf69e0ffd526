"""The test finisher: which words end a machine, and how."""

import pytest

from anyvirt.devices.test_finisher import Finish, Outcome, TestFinisher


@pytest.mark.parametrize(
    ("size", "word", "finish"),
    [
        (4, 0x5555, Finish(Outcome.PASS)),
        (2, 0x5555, Finish(Outcome.PASS)),
        (4, 0xFFFF_5555, Finish(Outcome.PASS)),
        (4, 0x0007_3333, Finish(Outcome.FAIL, 7)),
        (8, 0xFFFF_3333, Finish(Outcome.FAIL, 0xFFFF)),
        (4, 0x7777, Finish(Outcome.RESET)),
    ],
)
def test_what_ends_it(size, word, finish):
    finishes = []
    TestFinisher(finishes.append).write(0, size, word)
    assert finishes == [finish]


@pytest.mark.parametrize("access", [(4, 4, 0x5555), (0, 1, 0x55), (0, 4, 0), (0, 4, 0x1111)])
def test_what_does_not(access):
    finishes = []
    chip = TestFinisher(finishes.append)
    chip.write(*access)
    assert finishes == []
    assert chip.read(0, 4) == 0
