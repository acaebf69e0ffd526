"""The monitor's commands for a display, a keyboard and a pointer, with a guest that only listens."""

import pytest
from tests.machines import seat_program
from tests.machines.seat_program import ENOUGH, keys_of, listening, strokes

import anyvirt
from anyvirt.devices.evdev import Key
from anyvirt.errors import UsageError
from anyvirt.machines.debugging.monitor import Monitor


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "program.bin"
    path.write_bytes(seat_program.binary())
    with anyvirt.Machine(
        firmware=path, memory="16M", display=(64, 32), tier="interpreter", seed=1
    ) as machine:
        yield machine


def monitor_of_listener(machine, slot, count):
    """The monitor of a machine whose guest takes so many events of a device, and the device's driver."""
    script, card = listening(machine, slot, count)
    script.load()
    machine.run(instructions=ENOUGH)
    return Monitor(machine, counted=True), card


def test_a_display_is_written_to_a_file(machine, tmp_path):
    image = pytest.importorskip("PIL.Image")
    monitor = Monitor(machine, counted=True)
    assert monitor.execute(f"screenshot {tmp_path}/shown.png") == "64 x 32 pixels were written"
    with image.open(tmp_path / "shown.png") as found:
        assert found.size == (64, 32)
    with pytest.raises(UsageError, match="screenshot FILE"):
        monitor.execute("screenshot")


def test_keys_are_pressed(machine):
    monitor, card = monitor_of_listener(machine, 2, 8)
    monitor.execute('type "x"')
    monitor.execute("press enter")
    machine.run(instructions=ENOUGH)
    x, enter = Key.KEY_X, Key.KEY_ENTER
    assert keys_of(machine, card, 8) == strokes((x, 1), (x, 0), (enter, 1), (enter, 0))
    with pytest.raises(UsageError, match="press KEY"):
        monitor.execute("press")


def test_a_line_is_ended_by_enter(machine):
    monitor, card = monitor_of_listener(machine, 2, 8)
    monitor.execute("type x")
    machine.run(instructions=ENOUGH)
    assert [code for _, code, _ in keys_of(machine, card, 8)[::2]] == 2 * [Key.KEY_X] + 2 * [Key.KEY_ENTER]


def test_a_pixel_is_clicked(machine):
    monitor, card = monitor_of_listener(machine, 3, 7)
    monitor.execute("click 3 0x4 right")
    machine.run(instructions=ENOUGH)
    events = keys_of(machine, card, 7)
    assert [value * size // 32768 for (_, _, value), size in zip(events, (64, 32), strict=False)] == [3, 4]
    assert events[3][1] == Key.BTN_RIGHT
    with pytest.raises(UsageError, match="click X Y"):
        monitor.execute("click 3")
