"""Compiling in a child: what comes back, and when it is not done."""

import os
import threading

import pytest

from anyvirt.jit import apart
from anyvirt.jit.apart import made_apart


@pytest.fixture
def wanted(monkeypatch):
    """As in a process that wants it and has not imported LLVM."""
    monkeypatch.setattr(apart, "_wanted", threading.Event())
    apart.compile_apart()
    monkeypatch.setattr(apart, "_COMPILER", "a module that is not there")
    monkeypatch.setattr(threading, "active_count", lambda: 1)


def test_a_child_makes_it(wanted):
    made = made_apart(lambda: f"{os.getpid()} ".encode() + bytes(1 << 20))
    assert len(made) > 1 << 20
    assert int(made.partition(b" ")[0]) != os.getpid()


@pytest.mark.parametrize("way", [lambda: 1 / 0, lambda: os._exit(3), lambda: os.kill(os.getpid(), 9)])
def test_there_is_nothing_if_the_child_fails(wanted, way):
    assert made_apart(way) == b""


def test_there_is_no_child_beside_other_threads_or_with_llvm(wanted, monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert made_apart(lambda: b"made") == b""
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(apart, "_COMPILER", "os")
    assert made_apart(lambda: b"made") == b""


def test_there_is_no_child_unless_it_is_wanted(wanted, monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    apart._wanted.clear()
    assert made_apart(lambda: b"made") == b""
