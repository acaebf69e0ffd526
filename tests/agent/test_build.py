"""The agent's program is made once and then only read."""

import subprocess
import sys

import pytest

from anyvirt.agent.build import agent_program
from anyvirt.errors import UsageError
from anyvirt.isa.names import Isa

LOOK = """
import sys
from anyvirt.agent.build import agent_program
from anyvirt.isa.names import Isa
sys.stdout.buffer.write(agent_program(Isa.X86_64))
assert not {"anyvirt.jit.frontend", "anyvirt.agent.guest.program", "llvmlite"} & set(sys.modules)
"""


def test_a_kept_program_is_there_without_the_front_end():
    program = agent_program(Isa.X86_64)
    assert subprocess.run([sys.executable, "-c", LOOK], stdout=subprocess.PIPE, check=True).stdout == program
    assert program[:4] == b"\x7fELF"


def test_there_is_none_for_other_isas():
    with pytest.raises(UsageError):
        agent_program(Isa.SPARC)
