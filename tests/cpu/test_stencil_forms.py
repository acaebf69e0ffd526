"""Every instruction form once more, executed by stencils."""

import pytest

from anyvirt.cpu.reference import ReferenceExecutor

from .machines import Machine
from .stenciled import Stenciled
from .test_interpreter_forms import *  # noqa: F403
from .test_interpreter_forms import DESCRIPTIONS


@pytest.fixture(scope="module")
def machines():
    return {name: (Machine(Stenciled, name), Machine(ReferenceExecutor, name)) for name in DESCRIPTIONS}
