"""A program whose code gets hot while it forks, executes, faults and is interrupted: as under QEMU."""

import pytest

from anyvirt.cpu.tiers import TIER_VARIABLE, Tier
from anyvirt.jit.region_cache import CACHE
from anyvirt.paths import cache_directory

from .conftest import PROGRAMS, Result, run

KINDS = ["signals", "children", "faults", "code", "executed"]


@pytest.mark.parametrize("tier", list(Tier))
def test_hot_code_comes_to_what_it_comes_to_under_qemu(tier, tmp_path, emulate, compile_riscv64, qemu):
    """Twice: first nothing is on disk but what other tests have left, then what the first run has."""
    program = compile_riscv64(PROGRAMS / "hot.c")
    # QEMU cannot execute the program anew where the host's kernel does not know of it.
    first, second = (run((qemu, program, *words), directory=tmp_path) for words in ((), ("again",)))
    expected = Result(second.status, first.output.partition("executed")[0] + second.output, "")
    assert [line.split()[0] for line in expected.output.splitlines()] == KINDS
    assert "interrupted" in expected.output
    for _ in range(2):
        assert emulate(program, directory=tmp_path, **{TIER_VARIABLE: tier}) == expected
    if tier in (Tier.REGION, Tier.AUTO):
        assert any((cache_directory() / CACHE).iterdir())
