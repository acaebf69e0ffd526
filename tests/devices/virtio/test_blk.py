"""virtio-blk: every request, in any cut, on files; refusals end a request and never the device."""

import errno
import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.devices.virtio.driver import (
    BASE,
    EVENT_IDX,
    INDIRECT,
    NEEDS_RESET,
    PACKED,
    FakeMemory,
    Guest,
    MmioPort,
    PciPort,
)

from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.devices.disk import RawDisk
from anyvirt.devices.virtio.blk import VirtioBlk

SECTORS = 64
IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
RO, F_FLUSH, CONFIG_WCE, MQ, F_DISCARD, F_ZEROES = (1 << bit for bit in (5, 9, 11, 12, 13, 14))
ALL = 0xFFFFFF | INDIRECT | EVENT_IDX
OK, IOERR, UNSUPP = 0, 1, 2


class SpyDisk(RawDisk):
    """Counts flushes, and fails when told to."""

    flushes = 0
    error = None

    def flush(self):
        self.flushes += 1
        self.fail()
        super().flush()

    def fail(self):
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))

    def preadv(self, views, offset):
        self.fail()
        super().preadv(views, offset)

    def pwritev(self, views, offset):
        self.fail()
        super().pwritev(views, offset)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(os.urandom(SECTORS * 512))
    return path


@pytest.fixture
def disk(path):
    with SpyDisk(path) as disk:
        yield disk


def header(kind, sector=0):
    return struct.pack("<IIQ", kind, 0, sector)


def ask(guest, kind, sector=0, data=(), room=(), **options):
    """(status, answer, written)."""
    answer, written = guest.request(0, [header(kind, sector), *data], [*room, 1], **options)
    return answer[-1], answer[:-1], written


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def ring(request):
    return request.param


@pytest.mark.parametrize("port", [MmioPort, PciPort])
@pytest.mark.parametrize("machine", [False, True])
def test_reading_and_writing(path, disk, ring, port, machine):
    memory = FakeMemory()
    if machine:
        memory = MachineMemory()
        memory.add_ram(BASE, 1 << 20)
    content = bytearray(path.read_bytes())
    guest = Guest(VirtioBlk(memory, disk), features=ALL | ring, port=port)
    assert guest.port.config(0, 8) == SECTORS
    assert ask(guest, IN, 3, room=[512, 1024]) == (OK, content[1536:3072], 1537)
    new = os.urandom(1024)
    assert ask(guest, OUT, 5, [new[:100], new[100:]], indirect=True) == (OK, b"", 1)
    content[5 * 512 : 7 * 512] = new
    assert ask(guest, IN, 0, room=[SECTORS * 512])[1] == content
    assert path.read_bytes() == content
    if not machine:
        memory.check()


def test_a_read_marks_the_memory_it_changes(disk):
    memory = MachineMemory()
    memory.add_ram(BASE, 1 << 20)
    guest = Guest(VirtioBlk(memory, disk))
    guest.allocator.start = BASE + 0x8000
    memory.clear_dirty()
    ask(guest, IN, 0, room=[8192])
    assert {BASE + 0x8000, BASE + 0x9000, BASE + 0xA000} <= set(memory.dirty_pages())


def test_what_a_disk_says_of_itself(disk, ring):
    guest = Guest(
        VirtioBlk(FakeMemory(), disk, serial="a serial of more than twenty bytes"), features=ring | ALL
    )
    config = guest.port.config
    assert (config(12, 4), config(20, 4), config(24, 1), config(32, 1)) == (254, 512, 3, 1)
    assert ask(guest, GET_ID, room=[20])[:2] == (OK, b"a serial of more tha")
    assert ask(guest, 99, room=[5])[0] == UNSUPP


def test_flushing(disk):
    guest = Guest(VirtioBlk(FakeMemory(), disk), features=ALL)
    ask(guest, OUT, 0, [bytes(512)])
    assert disk.flushes == 0
    assert ask(guest, FLUSH)[0] == OK
    assert disk.flushes == 1
    guest.port.set_config(32, 1, 0)
    assert guest.port.config(32, 1) == 0
    ask(guest, OUT, 0, [bytes(512)])
    assert disk.flushes == 2


def test_for_a_driver_that_never_flushes_all_writes_last(disk):
    guest = Guest(VirtioBlk(FakeMemory(), disk))
    ask(guest, OUT, 0, [bytes(512)])
    assert disk.flushes == 1


@pytest.mark.parametrize("kind", [IN, OUT, FLUSH])
def test_errors_of_the_host_are_errors_of_the_disk(disk, kind):
    guest = Guest(VirtioBlk(FakeMemory(), disk), features=ALL)
    disk.error = errno.EIO
    data = {"data": [bytes(512)]} if kind == OUT else {"room": [512]} if kind == IN else {}
    assert ask(guest, kind, **data)[0] == IOERR
    disk.error = None
    assert ask(guest, kind, **data)[0] == OK


@pytest.mark.parametrize("sector", [SECTORS, SECTORS - 1, 2**55, 2**64 - 1])
def test_the_end_of_the_disk(disk, sector):
    guest = Guest(VirtioBlk(FakeMemory(), disk), features=ALL)
    assert ask(guest, IN, sector, room=[1024])[0] == IOERR
    assert ask(guest, OUT, sector, [bytes(1024)])[0] == IOERR
    assert ask(guest, DISCARD, 0, [struct.pack("<QII", sector, 2, 0)])[0] == IOERR
    assert ask(guest, WRITE_ZEROES, 0, [struct.pack("<QII", sector, 2, 0)])[0] == IOERR
    assert os.fstat(disk._descriptor).st_size == SECTORS * 512


@pytest.mark.parametrize("size", [1, 511, 513])
def test_parts_of_sectors(disk, size):
    guest = Guest(VirtioBlk(FakeMemory(), disk), features=ALL)
    assert ask(guest, IN, 0, room=[size])[0] == IOERR
    assert ask(guest, OUT, 0, [bytes(size)])[0] == IOERR


def test_zeroes_and_discard(path, disk):
    content = bytearray(path.read_bytes())
    guest = Guest(VirtioBlk(FakeMemory(), disk), features=ALL)
    segments = [struct.pack("<QII", 1, 2, 0), struct.pack("<QII", 10, 8, 1), struct.pack("<QII", 0, 0, 0)]
    assert ask(guest, WRITE_ZEROES, 0, segments)[0] == OK
    content[512:1536], content[5120:9216] = bytes(1024), bytes(4096)
    assert path.read_bytes() == content
    assert ask(guest, DISCARD, 0, [struct.pack("<QII", 16, 16, 0)])[0] == OK
    assert path.read_bytes()[: 16 * 512] == content[: 16 * 512]
    assert ask(guest, DISCARD, 0, [struct.pack("<QII", 0, 1, 1)])[0] == UNSUPP
    assert ask(guest, WRITE_ZEROES, 0, [struct.pack("<QII", 0, 1, 2)])[0] == UNSUPP
    assert ask(guest, DISCARD, 0, [bytes(15)])[0] == IOERR
    assert ask(guest, DISCARD)[0] == IOERR
    assert ask(guest, WRITE_ZEROES, 0, [bytes(16 * 33)])[0] == IOERR


def test_a_read_only_disk(path):
    content = path.read_bytes()
    with RawDisk(path, read_only=True) as disk:
        guest = Guest(VirtioBlk(FakeMemory(), disk), features=ALL)
        assert guest.features & RO
        assert not guest.features & (F_DISCARD | F_ZEROES)
        for kind in (OUT, DISCARD, WRITE_ZEROES):
            assert ask(guest, kind, 0, [struct.pack("<QII", 0, 1, 0) * 32])[0] == IOERR
        assert ask(guest, FLUSH)[0] == OK
        assert ask(guest, IN, 0, room=[512])[:2] == (OK, content[:512])
    assert path.read_bytes() == content


def test_several_queues(disk):
    guest = Guest(VirtioBlk(FakeMemory(), disk, queues=4), features=ALL, port=PciPort)
    assert guest.features & MQ
    assert guest.port.config(34, 2) == 4
    for queue in range(4):
        answer, _ = guest.request(queue, [header(GET_ID)], [20, 1])
        assert answer[-1] == OK
        assert {data for _, data in guest.port.messages} == {queue + 1}
        guest.port.interrupts()


def test_another_size(path, disk):
    guest = Guest(VirtioBlk(FakeMemory(), disk))
    before = guest.port.get(0xFC)
    disk.size = 512
    guest.device.resized()
    assert guest.port.interrupts() == 2
    assert guest.port.get(0xFC) != before
    assert guest.port.config(0, 8) == 1
    assert ask(guest, IN, 1, room=[512])[0] == IOERR


@pytest.mark.parametrize(
    ("readable", "writable"),
    [([b"short"], [1]), ([header(IN)], []), ([], [16]), ([header(OUT), bytes(512)], [])],
)
def test_requests_that_cannot_be_answered_break_the_device(disk, readable, writable):
    guest = Guest(VirtioBlk(FakeMemory(), disk))
    guest.queues[0].add(readable, writable)
    guest.port.notify(0)
    assert guest.port.status & NEEDS_RESET
    guest.start()
    assert ask(guest, FLUSH)[0] == OK


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_request_in_any_cut_is_what_a_model_says(tmp_path, data):
    path = tmp_path / "model.raw"
    model = bytearray(os.urandom(16 * 512))
    path.write_bytes(model)
    ring = data.draw(st.sampled_from([0, PACKED]))
    with RawDisk(path) as disk:
        guest = Guest(VirtioBlk(FakeMemory(), disk, queue_size=16), features=ALL | ring)
        for _ in range(data.draw(st.integers(1, 6))):
            kind = data.draw(st.sampled_from([IN, OUT, WRITE_ZEROES]))
            sector, count = data.draw(st.integers(0, 17)), data.draw(st.integers(0, 4))
            fits, span = sector + count <= 16, slice(512 * sector, 512 * (sector + count))
            content = b""
            if kind == OUT:
                content = os.urandom(512 * count)
            elif kind == WRITE_ZEROES:
                content = struct.pack("<QII", sector, count, data.draw(st.integers(0, 1)))
            message = header(kind, sector) + content
            cut = data.draw(st.integers(0, len(message)))
            room = 512 * count if kind == IN else 0
            answer, _ = guest.request(0, [message[:cut], message[cut:]], [room // 3, room - room // 3 + 1])
            assert answer[-1] == (OK if fits else IOERR)
            if fits and kind == IN:
                assert answer[:-1] == model[span]
            elif fits:
                model[span] = content if kind == OUT else bytes(512 * count)
        assert path.read_bytes() == model
        guest.memory.check()
