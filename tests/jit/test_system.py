"""The words of programs, as CPython runs them on the host's kernel."""

import ctypes
import os

import pytest

from anyvirt.jit.system import system_call, text
from anyvirt.typed import load8, s64, u64


def test_system_calls_reach_the_kernel():
    assert system_call("getpid") == os.getpid()
    assert system_call("getppid") == os.getppid()


def test_errors_are_negative_numbers():
    assert system_call("close", s64(-1)) == -9  # EBADF
    assert system_call("openat", s64(-100), text(b"/nonexistent/file"), 0, 0) == -2  # ENOENT


def test_arguments_reach_the_kernel_in_order():
    reader, writer = os.pipe()
    assert system_call("write", writer, text(b"in order"), 8) == 8
    assert os.read(reader, 100) == b"in order"
    os.close(reader)
    os.close(writer)


def test_texts_end_with_a_zero_byte_and_stay():
    address = text(b"abc")
    assert ctypes.string_at(int(address)) == b"abc"
    assert load8(address + 3) == 0
    assert text(b"abc") == address
    assert isinstance(address, u64)


def test_unknown_names_are_refused():
    with pytest.raises(KeyError):
        system_call("no_such_call")
