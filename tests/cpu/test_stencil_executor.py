"""What is true of an interpreter holds for stencils: the same tests, every run translated before."""

import pytest

from .stenciled import Stenciled
from .test_interpreter import *  # noqa: F403


@pytest.fixture
def make():
    return Stenciled
