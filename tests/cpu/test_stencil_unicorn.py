"""Random instruction streams once more, executed by stencils."""

import pytest

from .machines import Machine
from .stenciled import Stenciled
from .test_unicorn import *  # noqa: F403


@pytest.fixture(scope="module")
def machine(isa):
    return Machine(Stenciled, isa.name)
