"""The programs of riscv-tests, in each tier: every one of them writes to `tohost` whether it has passed.

Nothing of the suite is here, and no package has it. ANYVIRT_RISCV_TESTS names a directory with its programs,
built for the environments `p` and `v` (files such as rv64ui-p-add); without it there is nothing to run.
"""

import os
from pathlib import Path

import pytest

import anyvirt
from anyvirt.errors import UsageError
from anyvirt.machines.debugging.symbols import Symbols
from anyvirt.machines.ending import Reason

pytestmark = pytest.mark.slow

VARIABLE = "ANYVIRT_RISCV_TESTS"
ABSENT = {"zfh": "Zfh", "zbc": "Zbc", "zbkb": "Zbkb", "zbkx": "Zbkx"}
"""Extensions that harts do not have, by how programs for them are named."""
MOST_INSTRUCTIONS = 20_000_000
PIECE = 100_000
PASSED = 1
COMMAND_SHIFT = 48
"""What is written to `tohost` above this bit is not a verdict but a call of the host, such as to print."""


def programs():
    """The programs for 64-bit harts, or one parameter that is skipped and says why."""
    directory = os.environ.get(VARIABLE)
    reason = f"{VARIABLE} does not name a directory with the programs of riscv-tests"
    found = sorted(Path(directory).iterdir()) if directory and Path(directory).is_dir() else []
    chosen = [path for path in found if path.name.startswith("rv64") and not path.suffix]
    if not chosen:
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")]
    return [pytest.param(path, id=path.name, marks=list(marks(path))) for path in chosen]


def marks(path):
    """Skips what is for an extension that harts do not have."""
    extension = ABSENT.get(path.name.split("-")[0].removeprefix("rv64u"))
    if extension:
        yield pytest.mark.skip(reason=f"harts do not have {extension}")


def verdict(path, tier):
    """What a program writes to `tohost`, 0 if nothing."""
    symbols = Symbols()
    try:
        symbols.load(path)
    except UsageError as error:
        pytest.fail(str(error))
    place = symbols.address("tohost")
    assert place is not None, f"{path} has no symbol tohost"
    executed = 0
    with anyvirt.Machine(firmware=path, memory="16M", tier=tier, seed=1) as machine:
        while executed < MOST_INSTRUCTIONS:
            assert machine.run(instructions=PIECE).reason in (Reason.LIMIT, Reason.IDLE)
            executed += PIECE
            value = int.from_bytes(machine.memory[place : place + 8], "little")
            if value and not value >> COMMAND_SHIFT:
                return value
            if value:
                machine.memory[place : place + 8] = bytes(8)
                answer = symbols.address("fromhost")
                machine.memory[answer : answer + 8] = (1).to_bytes(8, "little")
    return 0


@pytest.mark.parametrize("tier", ["interpreter", "stencil"])
@pytest.mark.parametrize("path", programs())
def test_a_program_of_riscv_tests_passes(path, tier):
    value = verdict(path, tier)
    assert value, "it came to no verdict"
    assert value == PASSED, f"its test number {value >> 1} has failed"
