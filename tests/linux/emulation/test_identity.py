"""Limits on memory that belong to the guest alone."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.cpu.memory import FlatMemory, Protection
from anyvirt.linux.emulation.identity import INFINITY, RLIMIT_AS, RLIMIT_STACK, MemoryLimits

SIZES = st.one_of(st.integers(0, 1 << 50), st.just(INFINITY))


@given(SIZES, SIZES)
def test_a_soft_limit_never_exceeds_its_hard_limit(soft, hard):
    limits = MemoryLimits()
    before = limits[RLIMIT_AS]
    result = limits.change(RLIMIT_AS, soft, hard)
    if soft > hard:
        assert result == -errno.EINVAL
        assert limits[RLIMIT_AS] == before
    elif result == 0:
        assert limits[RLIMIT_AS] == (soft, hard)


def test_an_ordinary_user_cannot_raise_a_hard_limit(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    limits = MemoryLimits()
    assert limits.change(RLIMIT_STACK, 1 << 20, 1 << 21) == 0
    assert limits.change(RLIMIT_STACK, 1 << 20, 1 << 22) == -errno.EPERM
    assert limits[RLIMIT_STACK] == (1 << 20, 1 << 21)


@pytest.mark.parametrize(("growth", "allowed"), [(4096, True), (8192, True), (8193, False), (1 << 40, False)])
def test_the_address_space_grows_to_its_limit_and_no_further(growth, allowed):
    memory = FlatMemory(1 << 30)
    memory.map(0x10000, 8192, Protection.READ)
    limits = MemoryLimits()
    limits.change(RLIMIT_AS, 16384, INFINITY)
    assert limits.allows(memory, growth) is allowed
