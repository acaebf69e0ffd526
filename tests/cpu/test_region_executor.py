"""What is true of an interpreter holds for regions: the same tests, every run of theirs compiled before."""

import pytest

from anyvirt.cpu.memory import FlatMemory

from .regional import Regional
from .test_interpreter import *  # noqa: F403
from .test_interpreter import CODE, DATA, PAGE


@pytest.fixture
def make():
    return Regional


@pytest.fixture
def memory():
    memory = FlatMemory()
    memory.map(CODE, 2 * PAGE, 7)
    memory.map(DATA, PAGE, 3)
    return memory
