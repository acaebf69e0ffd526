"""The table of system calls is complete and consistent, and converts arguments as the kernel does."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.linux.emulation.abi import RISCV64
from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.passthrough import PASS_THROUGH, RESTARTED
from anyvirt.linux.emulation.registry import Table
from anyvirt.linux.emulation.table import HANDLED, Kind, convert, parse_signature, signed

WORDS = st.integers(0, (1 << 64) - 1)


@given(WORDS)
def test_signed_numbers_are_two_s_complement(value):
    assert signed(value) & ((1 << 64) - 1) == value
    assert -(1 << 63) <= signed(value) < 1 << 63
    assert signed(value, 32) == signed(value & 0xFFFF_FFFF, 32)


@given(WORDS)
def test_the_kernel_s_int_arguments_ignore_the_upper_half(value):
    low = value & 0xFFFF_FFFF
    for kind in (Kind.INT, Kind.FD, Kind.SIGNAL, Kind.FLAGS, Kind.MODE):
        assert convert(kind, value) == convert(kind, low)
        assert convert(kind, value) & 0xFFFF_FFFF == low
    for kind in (Kind.SIZE, Kind.POINTER, Kind.BUFFER, Kind.PATH):
        assert convert(kind, value) == value


def test_a_call_is_handled_or_passed_through_but_not_both():
    assert not HANDLED.keys() & PASS_THROUGH.keys()
    assert PASS_THROUGH.keys() <= HOST.keys()
    assert PASS_THROUGH.keys() >= RESTARTED
    assert HANDLED.keys() | PASS_THROUGH.keys() <= RISCV64.numbers.keys()


@pytest.mark.parametrize("name", sorted(PASS_THROUGH))
def test_a_buffer_is_followed_by_its_length(name):
    kinds = parse_signature(PASS_THROUGH[name])
    assert len(kinds) <= 6
    for index, kind in enumerate(kinds):
        if kind is Kind.BUFFER:
            assert kinds[index + 1] is Kind.SIZE


def test_every_handler_says_what_it_does():
    assert all(call.summary for call in HANDLED.values())


def test_the_table_knows_names_of_calls_that_are_not_served():
    table = Table(RISCV64)
    assert table.name(RISCV64.numbers["bpf"]) == "bpf"
    assert table.name(9999) == "syscall_9999"
    for number in (RISCV64.numbers["bpf"], 9999):
        with pytest.raises(KeyError):
            table[number]


class _Memory:
    size, base = 1 << 20, 0x10_0000_0000


class _Cpu:
    def __init__(self):
        self.calls = []

    def system_call(self, number, *arguments):
        self.calls.append((number, arguments))
        return 0


class _Process:
    def __init__(self):
        self.memory, self.cpu = _Memory(), _Cpu()


@given(st.integers(0, 1 << 21), st.integers(0, 1 << 64))
def test_no_buffer_that_leaves_the_address_space_reaches_the_host(address, length):
    process = _Process()
    result = Table(RISCV64)[RISCV64.numbers["read"]].serve(process, [0, address, length, 0, 0, 0])
    inside = address + length <= _Memory.size and address < _Memory.size
    if inside:
        pointer = address + _Memory.base if address else 0
        assert process.cpu.calls == [(HOST["read"], (0, pointer, length, 0, 0, 0))]
    else:
        assert result == -errno.EFAULT
        assert process.cpu.calls == []


@given(st.lists(WORDS, min_size=6, max_size=6))
def test_no_pointer_outside_the_address_space_reaches_the_host(arguments):
    table = Table(RISCV64)
    for name, signature in PASS_THROUGH.items():
        process = _Process()
        table[RISCV64.numbers[name]].serve(process, list(arguments))
        for number, passed in process.cpu.calls:
            assert number == HOST[name]
            for kind, value in zip(parse_signature(signature), passed, strict=False):
                if kind in (Kind.POINTER, Kind.BUFFER, Kind.PATH):
                    assert value == 0 or _Memory.base <= value < _Memory.base + _Memory.size
