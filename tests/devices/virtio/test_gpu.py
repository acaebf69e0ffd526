"""virtio-gpu against a driver made from the standard: pictures, outputs, cursors, errors, mischief."""

import random
import struct

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from tests.devices.hostile import is_plain
from tests.devices.virtio.driver import BASE, NEEDS_RESET, PACKED, FakeMemory
from tests.devices.virtio.gpu_driver import (
    ATTACH,
    BAD_PARAMETER,
    CREATE,
    DETACH,
    EDID,
    FLUSH,
    FORMATS,
    INFO,
    MEMORY,
    MOVE_CURSOR,
    NO_MEMORY,
    NO_RESOURCE,
    NO_SCANOUT,
    OK,
    OK_EDID,
    OK_INFO,
    SCANOUT,
    TRANSFER,
    UNREF,
    UNSPEC,
    UPDATE_CURSOR,
    Driver,
    noise,
    ready,
)

from anyvirt.devices.bus import StateError
from anyvirt.devices.edid import edid
from anyvirt.devices.virtio import gpu, gpu_resources
from anyvirt.devices.virtio.gpu import VirtioGpu


@pytest.mark.parametrize("ring", [0, PACKED])
@pytest.mark.parametrize("number", FORMATS)
def test_a_picture_is_shown(ring, number):
    driver = Driver(ring=ring)
    assert driver.device.frame() is None
    driver.create(format=number)
    driver.attach(1, (driver.picture, 64 * 32 * 4))
    driver.show()
    assert driver.device.frame().pixels == bytes(64 * 32 * 4), "a new resource is black"
    content = noise(64 * 32 * 4)
    driver.draw(content)
    driver.transfer((0, 0, 64, 32), 0)
    before = len(driver.updates)
    driver.flush()
    assert len(driver.updates) == before + 1
    assert driver.device.frame() == (64, 32, FORMATS[number], content)


def test_displays_and_their_edid():
    driver = Driver([(1024, 768), (800, 600)])
    assert driver.guest.port.config(0, 4) == 0
    assert driver.guest.port.config(8, 4) == 2
    kind, _, _, body = driver.ask(INFO)
    assert (kind, len(body)) == (OK_INFO, 16 * 24)
    modes = list(struct.iter_unpack("<6I", body))
    assert modes[:2] == [(0, 0, 1024, 768, 1, 0), (1024, 0, 800, 600, 1, 0)]
    assert not any(any(mode) for mode in modes[2:])
    kind, _, _, body = driver.ask(EDID, struct.pack("<II", 1, 0))
    assert (kind, len(body)) == (OK_EDID, 8 + 1024)
    assert struct.unpack_from("<I", body) == (128,)
    assert body[8:136] == edid(800, 600)
    driver.do(EDID, "I4x", 2, expected=NO_SCANOUT)
    Driver(features=0).do(EDID, "I4x", 0, expected=UNSPEC)


def test_a_display_of_another_size_is_an_event():
    driver = Driver()
    driver.device.resize(800, 600)
    assert driver.guest.port.interrupts() == 2
    assert driver.guest.port.config(0, 4) == 1
    assert struct.unpack_from("<4I", driver.ask(INFO)[3]) == (0, 0, 800, 600)
    driver.guest.port.set_config(4, 4, 1)
    assert driver.guest.port.config(0, 4) == 0
    for size in ((15, 100), (100, 4096), (0, 0)):
        with pytest.raises(ValueError, match="16 to 4095"):
            driver.device.resize(*size)


def test_fences_are_told_and_nothing_else():
    driver = Driver()
    assert driver.ask(INFO, fence=2**64 - 1)[1:3] == (1, 2**64 - 1)
    assert driver.ask(INFO)[1:3] == (0, 0)
    assert driver.ask(0x999, fence=5)[:3] == (UNSPEC, 1, 5)


def test_requests_in_any_pieces():
    driver = Driver()
    body = struct.pack("<4I", 1, 1, 64, 32)
    assert driver.ask(CREATE, body, cut=(1, 3, 24, 30))[0] == OK
    entries = struct.pack("<II", 1, 2) + b"".join(
        struct.pack("<QI4x", driver.picture + start, 4096) for start in (4096, 0)
    )
    assert driver.ask(ATTACH, entries, cut=(2, 31, 33, 47, 60))[0] == OK
    assert driver.device.resources.get(1).backing.entries == [
        (driver.picture + 4096, 4096),
        (driver.picture, 4096),
    ]


def test_parts_are_copied_from_where_the_driver_says_and_nothing_else():
    driver, chance = ready(), random.Random(5)
    memory = noise(64 * 32 * 4, seed=2)
    driver.draw(memory)
    wanted = bytearray(64 * 32 * 4)
    for _ in range(100):
        x, y = chance.randrange(64), chance.randrange(32)
        width, height = chance.randint(1, 64 - x), chance.randint(1, 32 - y)
        last = 64 * 32 * 4 - ((height - 1) * 256 + width * 4)
        offset = chance.choice([y * 256 + x * 4, chance.randint(0, last)])
        driver.transfer((x, y, width, height), offset)
        for row in range(height):
            start, source = (y + row) * 256 + x * 4, offset + row * 256
            wanted[start : start + width * 4] = memory[source : source + width * 4]
        assert driver.device.frame().pixels == wanted


def test_backing_in_pieces_of_any_length():
    driver, chance = Driver(), random.Random(6)
    driver.create()
    content, entries, at, left = noise(64 * 32 * 4), [], driver.picture, 64 * 32 * 4
    pieces = []
    while left:
        length = min(left, chance.choice([0, 1, 3, 64, 255, 256, 257, 1000]))
        pieces.append(length)
        left -= length
    places = list(range(len(pieces)))
    chance.shuffle(places)
    done = 0
    for place, length in zip(places, pieces, strict=True):
        entries.append((at + 1024 * place, length))
        if length:
            driver.draw(content[done : done + length], at + 1024 * place)
        done += length
    driver.attach(1, *entries)
    driver.show()
    driver.transfer((0, 0, 64, 32), 0)
    assert driver.device.frame().pixels == content
    for part in ((3, 0, 60, 32), (63, 31, 1, 1), (0, 5, 64, 3), (10, 2, 20, 9)):
        driver.draw(bytes(64), at + 1024 * places[1])
        driver.transfer(part, part[1] * 256 + part[0] * 4)


def test_outputs_show_parts_of_resources():
    driver = Driver([(32, 32), (16, 16), (64, 32)])
    driver.create()
    driver.attach(1, (driver.picture, 64 * 32 * 4))
    content = noise(64 * 32 * 4)
    driver.draw(content)
    driver.transfer((0, 0, 64, 32), 0)
    driver.show(part=(0, 0, 32, 32), scanout=0)
    driver.show(part=(40, 7, 16, 16), scanout=1)
    frame = driver.device.frame(1)
    assert frame[:3] == (16, 16, "BGRA")
    assert frame.pixels == b"".join(content[256 * y + 160 : 256 * y + 224] for y in range(7, 23))
    assert driver.device.frame(2) is None
    driver.show(0, scanout=0)
    assert driver.device.frame(0) is None
    driver.do(UNREF, "I4x", 1)
    assert driver.device.frame(1) is None
    driver.flush(expected=NO_RESOURCE)
    driver.create()
    assert driver.device.frame(1) is None, "another resource of that number is not shown by itself"


def test_pages_are_flipped():
    driver = ready()
    driver.create(2)
    driver.attach(2, (driver.picture + 8192, 8192))
    driver.draw(noise(16384))
    for number in (1, 2):
        driver.transfer((0, 0, 64, 32), 0, number)
    for number in (1, 2, 1):
        driver.show(number)
        assert driver.device.frame().pixels == noise(16384)[8192 * (number - 1) : 8192 * number]


def test_cursors():
    driver = Driver()
    driver.create(9, 64, 64)
    driver.attach(9, (driver.picture, 64 * 64 * 4))
    driver.draw(noise(64 * 64 * 4))
    driver.transfer((0, 0, 64, 64), 0, 9)
    driver.cursor(x=20, y=10, number=9, hot=(3, 4))
    driver.do(UNREF, "I4x", 9)
    (scanout,) = driver.device.scanouts
    assert scanout.cursor.pixels == noise(64 * 64 * 4)
    driver.cursor(MOVE_CURSOR, x=-5, y=7, number=123)
    assert (scanout.cursor.x, scanout.cursor.y) == (-5, 7)
    assert (scanout.cursor.hot_x, scanout.cursor.hot_y) == (3, 4)
    driver.cursor()
    assert scanout.cursor is None
    driver.cursor(MOVE_CURSOR, x=1)
    assert scanout.cursor is None


def test_drivers_need_not_wait_for_cursors():
    driver = Driver()
    request = struct.pack("<IIQIB3xIii4x3I4x", UPDATE_CURSOR, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0)
    assert driver.guest.request(1, [request]) == (b"", 0)


@pytest.mark.parametrize(
    ("command", "layout", "values", "queue", "expected"),
    [
        (CREATE, "4I", (0, 1, 8, 8), 0, NO_RESOURCE),
        (CREATE, "4I", (1, 1, 8, 8), 0, NO_RESOURCE),
        (CREATE, "4I", (2, 5, 8, 8), 0, BAD_PARAMETER),
        (CREATE, "4I", (2, 1, 0, 8), 0, BAD_PARAMETER),
        (CREATE, "4I", (2, 1, 8, 0), 0, BAD_PARAMETER),
        (CREATE, "4I", (2, 1, 2**32 - 1, 2**32 - 1), 0, BAD_PARAMETER),
        (CREATE, "4I", (2, 1, 0x8000, 0x20000), 0, BAD_PARAMETER),
        (CREATE, "4I", (2, 1, 16384, 16384), 0, NO_MEMORY),
        (CREATE, "3I", (2, 1, 8), 0, BAD_PARAMETER),
        (CREATE, "4I", (2, 1, 8, 8), 1, UNSPEC),
        (UNREF, "I4x", (2,), 0, NO_RESOURCE),
        (SCANOUT, "6I", (0, 0, 64, 32, 1, 1), 0, NO_SCANOUT),
        (SCANOUT, "6I", (0, 0, 64, 32, 2**32 - 1, 0), 0, NO_SCANOUT),
        (SCANOUT, "6I", (0, 0, 64, 32, 0, 2), 0, NO_RESOURCE),
        (SCANOUT, "6I", (0, 0, 65, 32, 0, 1), 0, BAD_PARAMETER),
        (SCANOUT, "6I", (1, 0, 64, 32, 0, 1), 0, BAD_PARAMETER),
        (SCANOUT, "6I", (0, 0, 64, 0, 0, 1), 0, BAD_PARAMETER),
        (SCANOUT, "6I", (2**32 - 1, 0, 2, 1, 0, 1), 0, BAD_PARAMETER),
        (FLUSH, "5I4x", (0, 0, 64, 33, 1), 0, BAD_PARAMETER),
        (FLUSH, "5I4x", (0, 0, 64, 32, 3), 0, NO_RESOURCE),
        (TRANSFER, "4IQI4x", (0, 0, 64, 32, 0, 3), 0, NO_RESOURCE),
        (TRANSFER, "4IQI4x", (0, 0, 64, 33, 0, 1), 0, BAD_PARAMETER),
        (TRANSFER, "4IQI4x", (63, 31, 2, 1, 0, 1), 0, BAD_PARAMETER),
        (TRANSFER, "4IQI4x", (0, 0, 64, 32, 1, 1), 0, BAD_PARAMETER),
        (TRANSFER, "4IQI4x", (0, 0, 64, 32, 2**64 - 1, 1), 0, BAD_PARAMETER),
        (TRANSFER, "4IQI4x", (0, 0, 1, 1, 64 * 32 * 4 - 3, 1), 0, BAD_PARAMETER),
        (ATTACH, "IIQI4x", (1, 1, BASE, 4096), 0, UNSPEC),
        (ATTACH, "IIQI4x", (4, 1, BASE, 4096), 0, NO_RESOURCE),
        (DETACH, "I4x", (4,), 0, NO_RESOURCE),
        (UPDATE_CURSOR, "Iii4x3I4x", (1, 0, 0, 1, 0, 0), 1, NO_SCANOUT),
        (UPDATE_CURSOR, "Iii4x3I4x", (0, 0, 0, 4, 0, 0), 1, NO_RESOURCE),
        (UPDATE_CURSOR, "Iii4x3I4x", (0, 0, 0, 1, 0, 0), 1, BAD_PARAMETER),
        (MOVE_CURSOR, "Iii4x3I4x", (9, 0, 0, 1, 0, 0), 1, NO_SCANOUT),
        (MOVE_CURSOR, "Iii4x3I4x", (0, 0, 0, 0, 0, 0), 0, UNSPEC),
        (0x108, "II", (0, 0), 0, UNSPEC),
        (0x200, "", (), 0, UNSPEC),
        (0, "", (), 0, UNSPEC),
    ],
)
def test_what_makes_no_sense_is_answered_by_an_error_and_changes_nothing(
    command, layout, values, queue, expected
):
    driver = ready()
    before = driver.device.save_fields()
    driver.do(command, layout, *values, queue=queue, expected=expected)
    assert driver.device.save_fields() == before


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 4096)],
        [(BASE, 4096), (BASE + MEMORY - 100, 101)],
        [(2**64 - 100, 200)],
        [(BASE, 2**32 - 1)],
    ],
)
def test_backing_has_to_be_in_memory(entries):
    driver = Driver()
    driver.create()
    driver.attach(1, *entries, expected=BAD_PARAMETER)
    assert driver.device.resources.get(1).backing is None
    driver.transfer((0, 0, 1, 1), 0, expected=UNSPEC)


@pytest.mark.parametrize("count", [0, 2, gpu_resources.MOST_ENTRIES + 1, 2**32 - 1])
def test_backing_has_the_entries_that_it_says(count):
    driver = Driver()
    driver.create()
    driver.do(ATTACH, "IIQI4x", 1, count, BASE, 4096, expected=BAD_PARAMETER)


def test_backing_is_detached():
    driver = ready()
    driver.do(DETACH, "I4x", 1)
    driver.transfer((0, 0, 1, 1), 0, expected=UNSPEC)
    driver.do(DETACH, "I4x", 1, expected=UNSPEC)
    driver.attach(1, (driver.picture + 4096, 4096))
    driver.transfer((0, 0, 64, 16), 0)
    driver.transfer((0, 0, 64, 17), 0, expected=BAD_PARAMETER)


def test_the_host_s_memory_is_limited():
    driver = Driver()
    number = 0
    while driver.ask(CREATE, struct.pack("<4I", number + 1, 1, 4096, 1024))[0] == OK:
        number += 1
    assert number == gpu_resources.MOST_MEMORY // (4096 * 1024 * 4) - 1
    assert driver.device.resources.cost <= gpu_resources.MOST_MEMORY
    driver.do(UNREF, "I4x", 1)
    driver.create(1, 4096, 1024)
    for old in range(1, number + 1):
        driver.do(UNREF, "I4x", old)
    assert driver.device.resources.cost == 0


def test_small_resources_and_pieces_of_backing_are_not_free(monkeypatch):
    monkeypatch.setattr(gpu_resources, "MOST_MEMORY", 1 << 20)
    driver = Driver()
    number = 0
    while driver.ask(CREATE, struct.pack("<4I", number + 1, 1, 1, 1))[0] == OK:
        number += 1
    assert 256 <= number < 1024
    for old in range(200, number + 1):
        driver.do(UNREF, "I4x", old)
    attached = 0
    while attached < 200:
        body = struct.pack("<II", attached + 1, 1000) + struct.pack("<QI4x", BASE, 4) * 1000
        if driver.ask(ATTACH, body)[0] != OK:
            break
        attached += 1
    assert 0 < attached < 10


@pytest.mark.parametrize("length", [0, 1, 23])
def test_without_a_header_there_is_no_answer(length):
    driver = Driver()
    if length:
        driver.guest.queues[0].add([bytes(length)], [24])
    else:
        driver.guest.queues[0].add([], [24])
    driver.guest.port.notify(0)
    assert driver.guest.port.status & NEEDS_RESET


def test_a_reset_makes_it_dark():
    driver = ready()
    driver.cursor(number=0)
    driver.device.resize(100, 100)
    driver.guest.port.status = 0
    assert driver.device.frame() is None
    assert (driver.device.resources.cost, list(driver.device.resources)) == (0, [])
    assert driver.guest.port.config(0, 4) == 0


def test_others_have_their_turn(monkeypatch):
    monkeypatch.setattr(gpu, "MOST_WORK", 3 * 64 * 32 * 4)
    posted = []
    driver = ready(post=posted.append)
    queue, transfers = driver.guest.queues[0], 40
    request = struct.pack("<IIQIB3x4IQI4x", TRANSFER, 0, 0, 0, 0, 0, 0, 64, 32, 0, 1)
    for _ in range(transfers):
        queue.add([request], [24])
    driver.guest.port.notify(0)
    rounds, done = 0, len(queue.used())
    assert 0 < done < transfers
    while posted:
        state = driver.device.save_state()
        posted.clear()
        driver.device.load_state(state)
        assert len(posted) == 1, "who waits for its turn waits for it after a restored state, too"
        posted.pop()()
        done += len(queue.used())
        rounds += 1
    assert done == transfers and rounds > 3


def test_a_picture_goes_on_elsewhere():
    driver = ready()
    driver.create(2, 64, 64, format=67)
    driver.attach(2, (driver.picture, 0), (driver.picture, 100), (driver.picture + 200, 64 * 64 * 4))
    driver.draw(noise(64 * 64 * 4))
    driver.transfer((0, 0, 64, 32), 0)
    driver.transfer((5, 5, 40, 40), 50, 2)
    driver.cursor(number=2, x=-3, y=9, hot=(1, 2))
    driver.device.resize(320, 200)
    state = driver.device.save_state()
    assert is_plain(state)
    twin = Driver(memory=driver.device.memory)
    twin.device.load_state(state)
    assert twin.device.save_state() == state
    assert twin.device.frame() == driver.device.frame()
    assert twin.device.resources.cost == driver.device.resources.cost
    assert twin.device.scanouts == driver.device.scanouts


def test_states_share_pictures_that_are_the_same():
    driver = ready()
    pixels = [driver.device.save_fields()["resources"][0]["pixels"] for _ in range(2)]
    assert pixels[0] is pixels[1]
    driver.draw(b"other")
    driver.transfer((0, 0, 64, 32), 0)
    assert driver.device.save_fields()["resources"][0]["pixels"][:5] == b"other"
    assert not any(pixels[0])


def damage(fields):
    (resource,) = fields["resources"]
    (scanout,) = fields["scanouts"]
    yield {**fields, "scanouts": []}
    yield {**fields, "resources": []}
    yield {**fields, "resources": [resource, resource]}
    for name, wrong in [
        ("number", 0),
        ("number", 1 << 32),
        ("format", "BGR"),
        ("size", [64, 31]),
        ("size", [1 << 20, 1 << 20]),
        ("pixels", "text"),
        ("backing", [BASE]),
        ("backing", [0, 4096]),
        ("backing", [BASE, 4096] * 16385),
    ]:
        yield {**fields, "resources": [{**resource, name: wrong}]}
    for name, wrong in [
        ("size", [0, 0]),
        ("number", 2),
        ("part", [0, 0, 65, 32]),
        ("cursor", [0, 0, 0, 0, "BGRA", b""]),
        ("cursor", [0, 0, 64, 0, "BGRA", bytes(64 * 64 * 4)]),
    ]:
        yield {**fields, "scanouts": [{**scanout, name: wrong}]}


def test_damaged_states_are_refused():
    driver = ready()
    state = driver.device.save_state()
    for fields in damage(state["fields"]):
        with pytest.raises(StateError):
            driver.device.load_state({**state, "fields": fields})
        assert driver.device.save_state() == state


def test_an_adapter_has_outputs():
    for displays in ([], [(64, 64)] * 17, [(64, 5)]):
        with pytest.raises(ValueError, match=r"1 to 16|16 to 4095"):
            VirtioGpu(FakeMemory(), displays)


NUMBERS = st.sampled_from([0, 1, 2, 3, 64, 2**31, 2**32 - 1]) | st.integers(0, 70) | st.integers(0, 2**32 - 1)
OFFSETS = st.integers(0, 20_000) | st.integers(0, 2**64 - 1)
ADDRESSES = st.integers(BASE, BASE + MEMORY) | st.integers(0, 2**64 - 1)


class AnyGuest(RuleBasedStateMachine):
    """Whatever a guest asks: no exception, an answer for everything, and never too much memory."""

    def __init__(self):
        super().__init__()
        self.driver = Driver([(64, 32), (16, 16)])

    def ask(self, command, layout, *values, queue=0):
        kind = self.driver.ask(command, struct.pack("<" + layout, *values), queue=queue)[0]
        assert kind in (OK, OK_INFO, OK_EDID) or UNSPEC <= kind <= BAD_PARAMETER

    @rule(command=st.sampled_from([*range(0xFF, 0x10F), 0x300, 0x301]), body=st.binary(max_size=60))
    def ask_anything(self, command, body):
        for queue in (0, 1):
            kind = self.driver.ask(command, body, queue=queue)[0]
            assert kind in (OK, OK_INFO, OK_EDID) or UNSPEC <= kind <= BAD_PARAMETER

    @rule(
        number=st.integers(0, 3),
        format=st.sampled_from([*FORMATS, 0, 7]),
        size=st.tuples(NUMBERS, NUMBERS) | st.just((64, 64)),
    )
    def create(self, number, format, size):
        self.ask(CREATE, "4I", number, format, *size)

    @rule(number=st.integers(0, 3), command=st.sampled_from([UNREF, DETACH]))
    def forget(self, number, command):
        self.ask(command, "I4x", number)

    @rule(
        number=st.integers(0, 3), entries=st.lists(st.tuples(ADDRESSES, st.integers(0, 20_000)), max_size=4)
    )
    def attach(self, number, entries):
        flat = [part for entry in entries for part in entry]
        self.ask(ATTACH, "II" + "QI4x" * len(entries), number, len(entries), *flat)

    @rule(part=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), offset=OFFSETS, number=st.integers(0, 3))
    def transfer(self, part, offset, number):
        self.ask(TRANSFER, "4IQI4x", *part, offset, number)

    @rule(part=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), number=st.integers(0, 3))
    def flush(self, part, number):
        self.ask(FLUSH, "5I4x", *part, number)

    @rule(
        part=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        scanout=st.integers(0, 2),
        number=st.integers(0, 3),
    )
    def show(self, part, scanout, number):
        self.ask(SCANOUT, "6I", *part, scanout, number)

    @rule(
        command=st.sampled_from([UPDATE_CURSOR, MOVE_CURSOR]),
        scanout=st.integers(0, 2),
        place=st.tuples(*[st.integers(-(2**31), 2**31 - 1)] * 2),
        number=st.integers(0, 3),
        hot=st.tuples(NUMBERS, NUMBERS),
    )
    def move(self, command, scanout, place, number, hot):
        self.ask(command, "Iii4x3I4x", scanout, *place, number, *hot, queue=1)

    @rule(seed=st.integers(0, 2**32))
    def draw(self, seed):
        self.driver.draw(noise(5000, seed))

    @rule()
    def reload(self):
        state = self.driver.device.save_state()
        self.driver.device.load_state(state)
        assert self.driver.device.save_state() == state

    @invariant()
    def is_sound(self):
        device = self.driver.device
        assert device.failure == ""
        assert device.resources.cost == sum(device.resources.get(number).cost for number in device.resources)
        assert device.resources.cost <= gpu_resources.MOST_MEMORY
        for index in range(2):
            frame = device.frame(index)
            assert frame is None or len(frame.pixels) == 4 * frame.width * frame.height


def test_whatever_guests_ask():
    run_state_machine_as_test(
        AnyGuest,
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
