"""Interrupt wires, and states that do not fit."""

import pytest

from anyvirt.cpu.memory import FlatMemory, GuestFault
from anyvirt.devices.bus import BusError, StateError, Wire, expect_version


def test_a_listener_hears_of_changes_only():
    heard = []
    wire = Wire(heard.append)
    for level in (False, True, True, False, False):
        wire.set(level)
    assert heard == [True, False]
    assert wire.level is False


def test_whoever_connects_later_hears_of_a_line_that_is_active():
    wire, heard = Wire(), []
    wire.set(True)
    wire.connect(heard.append)
    wire.pulse()
    assert heard == [True, False]


def test_a_guest_fault_is_a_bus_error_for_devices():
    with pytest.raises(BusError) as raised:
        FlatMemory(1 << 20).read(0, 4)
    assert isinstance(raised.value, GuestFault)


def test_states_of_other_versions_are_refused():
    expect_version({"version": 2}, 2, "uart")
    with pytest.raises(StateError, match="the saved state of uart is version 1, not 2"):
        expect_version({"version": 1}, 2, "uart")
    with pytest.raises(StateError, match="None"):
        expect_version({}, 2, "uart")
