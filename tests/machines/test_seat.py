"""A display, a keyboard and a pointer, driven by a guest without an operating system."""

import struct
import sys

import pytest

import anyvirt
from anyvirt.devices.evdev import Key, Led
from anyvirt.devices.virtio.rng import VirtioRng
from anyvirt.errors import UsageError
from anyvirt.machines.ending import Reason
from anyvirt.machines.pci import attach_virtio_pci
from anyvirt.machines.seat.keymap import US
from anyvirt.machines.seat.picture import Picture

from . import seat_program
from .seat_program import (
    ENOUGH,
    EV_ABS,
    EV_KEY,
    EV_REL,
    EV_SYN,
    FILL,
    PICTURE,
    GpuCard,
    Script,
    keys_of,
    listening,
    strokes,
)

WIDTH, HEIGHT = 64, 32


@pytest.fixture
def firmware(tmp_path):
    path = tmp_path / "program.bin"
    path.write_bytes(seat_program.binary())
    return path


@pytest.fixture
def make(firmware):
    def machine(display=(WIDTH, HEIGHT), **options):
        return anyvirt.Machine(
            firmware=firmware, memory="16M", display=display, tier="interpreter", seed=1, **options
        )

    return machine


def expected(count=WIDTH * HEIGHT):
    """The colours of the program's picture."""
    words = [number * seat_program.STEP for number in range(count)]
    return b"".join(bytes((word >> 16 & 0xFF, word >> 8 & 0xFF, word & 0xFF)) for word in words)


def drawing(machine):
    """Let a machine's guest draw its picture."""
    script = Script(machine)
    card = GpuCard(script)
    script.do(FILL, PICTURE, WIDTH * HEIGHT)
    card.draw(WIDTH, HEIGHT)
    card.kick(0)
    card.finish(0)
    return script, card


def test_a_guest_s_picture_is_on_the_display(make):
    with make() as m:
        assert not m.display.is_on
        assert m.screenshot() == Picture(WIDTH, HEIGHT, bytes(3 * WIDTH * HEIGHT))
        script, _ = drawing(m)
        script.load()
        assert m.run(instructions=ENOUGH).reason is Reason.POWEROFF
        assert m.display.is_on
        assert m.display.updates > 1
        assert (m.display.width, m.display.height, m.display.format) == (WIDTH, HEIGHT, "BGRA")
        assert bytes(m.display.pixels) == seat_program.picture(WIDTH * HEIGHT)
        shown = m.screenshot()
        assert shown == Picture(WIDTH, HEIGHT, expected())
        assert shown.pixel(3, 2) == tuple(expected()[3 * 131 : 3 * 132])
        assert shown.crop(3, 2, 5, 1).rgb == expected()[3 * 131 : 3 * 136]
        for wrong in (lambda: shown.pixel(WIDTH, 0), lambda: shown.crop(60, 0, 5, 1)):
            with pytest.raises(IndexError):
                wrong()


@pytest.mark.parametrize("number", [1, 3, 67, 68])
def test_colours_are_right_in_every_order(make, number):
    with make() as m:
        script = Script(m)
        card = GpuCard(script)
        script.do(4, PICTURE, 0x44332211)
        card.draw(1, 1, number)
        card.kick(0)
        card.finish(0)
        script.load()
        m.run(instructions=ENOUGH)
        order = {1: "BGRA", 3: "ARGB", 67: "RGBA", 68: "XBGR"}[number]
        assert m.display.format == order
        assert m.screenshot().pixel(0, 0) == tuple(0x11 * (order.index(colour) + 1) for colour in "RGB")


def test_in_real_time_a_picture_is_waited_for(make):
    with make() as m:
        script, _ = drawing(m)
        script.wait(PICTURE - 16, 1)
        script.load()
        before = m.display.updates
        ending = m.run(seconds=100, until=lambda: m.display.updates >= before + 2)
        assert ending.reason is Reason.CONDITION
        assert m.screenshot().rgb == expected()


def test_pictures_are_written_to_files(make, tmp_path):
    image = pytest.importorskip("PIL.Image")
    with make() as m:
        script, _ = drawing(m)
        script.load()
        m.run(instructions=ENOUGH)
        shown = m.screenshot(tmp_path / "shown.png")
        with image.open(tmp_path / "shown.png") as found:
            assert (found.size, found.mode, found.tobytes()) == ((WIDTH, HEIGHT), "RGB", shown.rgb)
        assert shown._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
        with pytest.raises(UsageError, match=r"call it something\.png"):
            m.screenshot(tmp_path / "shown.unknown")
        with pytest.raises(UsageError, match="cannot be written"):
            m.screenshot(tmp_path / "nowhere" / "shown.png")


def test_without_pillow_there_are_pictures_but_no_files(make, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with make() as m:
        m.screenshot()
        with pytest.raises(UsageError, match=r"pip install 'anyvirt\[display\]'"):
            m.screenshot(tmp_path / "shown.png")


def test_the_cursor_is_drawn_above_a_picture_if_that_is_wanted(make):
    image, half, solid = PICTURE + 0x10000, bytes((50, 60, 70, 128)), b"\x01\x02\x03\xff"
    with make() as m:
        script, card = drawing(m)
        for x, y, pixel in ((3, 5, half), (63, 0, solid), (2, 0, solid), (0, 9, solid)):
            script.do(4, image + 4 * (64 * y + x), int.from_bytes(pixel, "little"))
        card.ask(0x101, "4I", 2, 1, 64, 64)
        card.ask(0x106, "IIQI4x", 2, 1, image, 4 * 64 * 64)
        card.ask(0x105, "4IQI4x", 0, 0, 64, 64, 0, 2)
        card.kick(0)
        card.finish(0)
        card.ask(0x300, "Iii4x3I4x", 0, 10, 8, 2, 11, 9, queue=1, room=0)
        card.kick(1)
        card.finish(1)
        script.load()
        m.run(instructions=ENOUGH)
        plain, drawn = m.screenshot(), m.screenshot(cursor=True)
        changed = {
            (x, y): drawn.pixel(x, y)
            for y in range(HEIGHT)
            for x in range(WIDTH)
            if plain.pixel(x, y) != drawn.pixel(x, y)
        }
        # Its corner is at (-1, -1): what is outside of the display is not to be seen.
        below = plain.pixel(2, 4)
        through = [min(of + under * 127 // 255, 255) for of, under in zip((70, 60, 50), below, strict=True)]
        assert changed == {(2, 4): tuple(through)}


def test_what_is_typed_comes_to_the_guest(make):
    with make() as m:
        script, card = listening(m, 2, 8)
        lamps = card.offer(1, struct.pack("<HHi", 17, Led.LED_CAPSL, 1))
        assert lamps
        card.kick(1)
        card.finish(1)
        script.load()
        m.keyboard.type("lost: there is no driver yet")
        assert not m.keyboard.is_ready
        m.run(instructions=ENOUGH, until=lambda: m.keyboard.is_ready)
        assert m.run(instructions=ENOUGH).reason is Reason.LIMIT
        m.keyboard.type("A")
        assert m.run(instructions=ENOUGH).reason is Reason.POWEROFF
        shift, key = Key.KEY_LEFTSHIFT, Key.KEY_A
        assert keys_of(m, card, 8) == strokes((shift, 1), (key, 1), (key, 0), (shift, 0))
        assert m.keyboard.lights == {Led.LED_CAPSL}


def test_keys_are_pressed_together_and_held(make):
    with make() as m:
        script, card = listening(m, 2, 8)
        script.load()
        m.run(instructions=ENOUGH)
        m.keyboard.press("ctrl", "c")
        assert m.run(instructions=ENOUGH).reason is Reason.POWEROFF
        control, c = Key.KEY_LEFTCTRL, Key.KEY_C
        assert keys_of(m, card, 8) == strokes((control, 1), (c, 1), (c, 0), (control, 0))
    with make() as m:
        script, card = listening(m, 2, 4)
        script.load()
        m.run(instructions=ENOUGH)
        m.keyboard.hold("f1")
        assert m.run(instructions=ENOUGH).reason is Reason.LIMIT
        m.keyboard.release(Key.KEY_F1)
        assert m.run(instructions=ENOUGH).reason is Reason.POWEROFF
        assert keys_of(m, card, 4) == strokes((Key.KEY_F1, 1), (Key.KEY_F1, 0))


def test_pointing(make):
    with make((100, 50)) as m:
        script, card = listening(m, 3, 7)
        script.load()
        m.run(instructions=ENOUGH)
        assert m.pointer.is_ready
        m.pointer.click(99, 7, "right")
        assert m.run(instructions=ENOUGH).reason is Reason.POWEROFF
        events = keys_of(m, card, 7)
        (_, _, x), (_, _, y) = events[:2]
        assert [event[:2] for event in events[:2]] == [(EV_ABS, 0), (EV_ABS, 1)]
        assert (x * 100 // 32768, y * 50 // 32768) == (99, 7)
        assert events[2:] == [(EV_SYN, 0, 0), *strokes((Key.BTN_RIGHT, 1), (Key.BTN_RIGHT, 0))]
    with make() as m:
        script, card = listening(m, 3, 4)
        script.load()
        m.run(instructions=ENOUGH)
        m.pointer.scroll(-2)
        m.run(instructions=ENOUGH)
        assert keys_of(m, card, 4) == 2 * [(EV_REL, 8, -1), (EV_SYN, 0, 0)]


def test_dragging(make):
    with make() as m:
        script, card = listening(m, 3, 8)
        script.load()
        m.run(instructions=ENOUGH)
        m.pointer.drag((1, 2), (3, 4))
        m.run(instructions=ENOUGH)
        kinds = [event[:2] for event in keys_of(m, card, 8)]
        move = [(EV_ABS, 0), (EV_ABS, 1), (EV_SYN, 0)]
        assert kinds == [*move, (EV_KEY, Key.BTN_LEFT), (EV_SYN, 0), *move]


@pytest.mark.parametrize("width", [64, 100, 1023, 4095])
def test_every_pixel_can_be_pointed_at(width):
    from anyvirt.machines.seat.pointer import _value

    assert [_value(pixel, width) * width // 32768 for pixel in range(width)] == list(range(width))


def test_every_character_of_a_keyboard_of_the_usa_has_a_key():
    assert {chr(code) for code in range(32, 127)} < US.keys()
    assert US["a"] == (Key.KEY_A, False) and US["A"] == (Key.KEY_A, True)
    assert US["~"] == (Key.KEY_GRAVE, True) and US["+"] == (Key.KEY_EQUAL, True)
    assert US["|"] == (Key.KEY_BACKSLASH, True) and US["?"] == (Key.KEY_SLASH, True)
    assert US['"'] == (Key.KEY_APOSTROPHE, True) and US["}"] == (Key.KEY_RIGHTBRACE, True)
    assert US["\n"] == (Key.KEY_ENTER, False)
    assert len(set(US.values())) == len(US)


def test_another_resolution_is_asked_for(make):
    with make() as m:
        script = Script(m)
        card = GpuCard(script)
        answer = card.ask(0x100, room=24 + 16 * 24)
        script.wait(card.configuration, 1)
        card.kick(0)
        card.finish(0)
        script.load()
        assert m.run(instructions=ENOUGH).reason is Reason.LIMIT
        m.display.resize(320, 200)
        assert (m.display.width, m.display.height) == (320, 200)
        assert m.run(instructions=ENOUGH).reason is Reason.POWEROFF
        assert struct.unpack("<4I", m.memory[answer + 24 : answer + 40]) == (0, 0, 320, 200)


def test_a_display_goes_on_in_snapshots_and_clones(make, tmp_path):
    with make() as m:
        script, card = drawing(m)
        script.wait(PICTURE - 16, 1)
        card.ask(0x105, "4IQI4x", 5, 5, 10, 10, 0, 1)
        card.ask(0x104, "5I4x", 5, 5, 10, 10, 1)
        card.kick(0)
        card.finish(0)
        script.load()
        assert m.run(instructions=ENOUGH).reason is Reason.LIMIT
        m.snapshot(tmp_path / "s")
        restored, copy = anyvirt.Machine.restore(tmp_path / "s", tier="interpreter"), m.clone()
        before, ends = m.screenshot(), []
        for machine in (m, restored, copy):
            assert machine.screenshot() == before
            machine.memory[PICTURE - 16 : PICTURE - 14] = b"\1\0"
            assert machine.run(instructions=ENOUGH).reason is Reason.POWEROFF
            ends.append(machine.screenshot())
        assert ends[0] == ends[1] == ends[2] != before
        assert ends[0].crop(5, 5, 10, 1) == before.crop(0, 0, 10, 1)
        assert m.display.updates == restored.display.updates == copy.display.updates


def test_what_is_typed_is_recorded_and_gone_back_in(make, tmp_path):
    with make() as m:
        script, card = listening(m, 2, 4)
        script.load()
        m.run(instructions=1000, until=lambda: m.keyboard.is_ready)
        with m.record(tmp_path / "r"):
            m.run(instructions=5000)
            m.keyboard.press("x")
            m.run(instructions=ENOUGH)
        again = anyvirt.Machine.replay(tmp_path / "r", tier="interpreter")
        again.replay_to_end()
        assert keys_of(again, card, 4) == strokes((Key.KEY_X, 1), (Key.KEY_X, 0))


def test_going_back_shows_what_was_shown(make):
    with make() as m:
        script, _ = drawing(m)
        script.load()
        m.keep_history(every=1000)
        m.run(instructions=ENOUGH)
        assert m.screenshot().rgb == expected()
        while m.display.is_on:
            m.reverse_step(100)
        assert not any(m.screenshot().rgb)
        m.run(instructions=ENOUGH)
        assert m.screenshot().rgb == expected()


def test_devices_of_the_user_s_are_on_the_same_bus(make):
    with make(attach=lambda board: attach_virtio_pci(board, [VirtioRng(board.memory)])) as m:
        words = [
            int.from_bytes(m.memory[start : start + 4], "little")
            for start in (seat_program.ECAM + (slot << 15) for slot in range(6))
        ]
        kinds = [word >> 16 for word in words]
        assert kinds == [0x0008, 0x1040 + 16, 0x1040 + 18, 0x1040 + 18, 0x1040 + 4, 0xFFFF]


def test_a_reset_makes_it_dark(make):
    with make() as m:
        script, _ = drawing(m)
        script.load()
        m.run(instructions=ENOUGH)
        m.reset()
        assert not m.display.is_on
        assert m.run(instructions=ENOUGH).reason is Reason.POWEROFF
        assert m.screenshot().rgb == expected()


def test_a_machine_without_a_display_says_so(make):
    with make(None) as m:
        for attempt in (m.screenshot, lambda: m.display, lambda: m.keyboard, lambda: m.pointer):
            with pytest.raises(UsageError, match=r"has no display: make it with display=\(1024, 768\)"):
                attempt()
        assert "pci" not in m.board.devices


@pytest.mark.parametrize(
    ("display", "complaint"),
    [
        ("big", "is not a width and a height, as in 1024x768"),
        ("1024x768x3", "is not a width and a height"),
        ((0, 100), "has 16 to 4095 pixels in each direction, not 0 x 100"),
        ("5000x100", "16 to 4095"),
        ((1024.5, 768), "16 to 4095"),
    ],
)
def test_mistakes_with_displays_have_sentences(make, display, complaint):
    with pytest.raises(UsageError, match=complaint):
        make(display)


def test_mistakes_with_keys_and_buttons_have_sentences(make):
    with make("64x32") as m:
        for mistake, complaint in (
            (lambda: m.keyboard.type("é"), "'é' is not on the keyboard"),
            (lambda: m.keyboard.press("any"), "no key 'any'"),
            (lambda: m.pointer.click(64, 0), "no pixel at 64, 0: the display has 64 x 32"),
            (lambda: m.pointer.move(0, -1), "no pixel"),
            (lambda: m.pointer.press("fourth"), "no button 'fourth': the buttons are left, right"),
            (lambda: m.display.resize(5, 5), "16 to 4095"),
        ):
            with pytest.raises(UsageError, match=complaint):
                mistake()
