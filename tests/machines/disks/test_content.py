"""What is on disks, their copies and moments, against plain bytes."""

import gc
import os
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from anyvirt.devices.disk import RawDisk
from anyvirt.machines.disks.blocks import BLOCK
from anyvirt.machines.disks.content import DiskBase, DiskContent, MachineDisk

SIZE = 5 * BLOCK + 1536
RANGES = st.tuples(st.integers(0, SIZE // 512 - 1), st.integers(1, 300)).map(
    lambda pair: (pair[0] * 512, min(pair[1] * 512, SIZE - pair[0] * 512))
)


def read(disk):
    data = bytearray(SIZE)
    views = [memoryview(data)[:1000], memoryview(data)[1000:70_000], memoryview(data)[70_000:]]
    disk.preadv(views, 0)
    return bytes(data)


class Disks(RuleBasedStateMachine):
    """One disk that writes to its image, copies of it and of each other, and moments of all of them."""

    def __init__(self):
        super().__init__()
        self.path = os.path.join(os.environ["ANYVIRT_STATE"], f"content-{os.getpid()}.img")
        content = random.Random(1).randbytes(SIZE - 2 * BLOCK) + bytes(2 * BLOCK)
        with open(self.path, "wb") as file:
            file.write(content)
        self.disks = [(MachineDisk.around(RawDisk(self.path)), bytearray(content))]
        self.moments = []

    def teardown(self):
        first, content = self.disks[0]
        first.flush()
        with open(self.path, "rb") as file:
            assert file.read() == content
        os.unlink(self.path)

    def check(self):
        for disk, content in self.disks:
            assert read(disk) == content

    @rule(data=st.data(), span=RANGES, byte=st.integers(0, 255), parts=st.integers(1, 3))
    def write(self, data, span, byte, parts):
        disk, content = data.draw(st.sampled_from(self.disks))
        start, length = span
        new = bytes([byte]) * length
        cut = length // parts
        disk.pwritev([memoryview(new)[:cut], memoryview(new)[cut:]], start)
        content[start : start + length] = new
        self.check()

    @rule(data=st.data(), span=RANGES, may_unmap=st.booleans())
    def write_zeroes(self, data, span, may_unmap):
        disk, content = data.draw(st.sampled_from(self.disks))
        start, length = span
        disk.write_zeroes(start, length, may_unmap=may_unmap)
        content[start : start + length] = bytes(length)
        self.check()

    @rule(data=st.data(), span=RANGES)
    def discard(self, data, span):
        disk, content = data.draw(st.sampled_from(self.disks))
        start, length = span
        disk.discard(start, length)
        after = read(disk)
        assert after[:start] == content[:start] and after[start + length :] == content[start + length :]
        content[:] = after
        self.check()

    @precondition(lambda self: len(self.moments) < 5)
    @rule(data=st.data())
    def freeze(self, data):
        disk, content = data.draw(st.sampled_from(self.disks))
        self.moments.append((disk, disk.freeze(), bytes(content)))

    @precondition(lambda self: self.moments)
    @rule(data=st.data())
    def bring_back(self, data):
        disk, moment, then = data.draw(st.sampled_from(self.moments))
        disk.become(moment)
        content = next(content for other, content in self.disks if other is disk)
        content[:] = then
        self.check()

    @precondition(lambda self: self.moments and len(self.disks) < 5)
    @rule(data=st.data())
    def copy(self, data):
        _, moment, then = data.draw(st.sampled_from(self.moments))
        self.disks.append((MachineDisk.copy_of(moment, read_only=False), bytearray(then)))
        self.check()

    @precondition(lambda self: self.moments)
    @rule(data=st.data())
    def forget(self, data):
        self.moments.remove(data.draw(st.sampled_from(self.moments)))
        gc.collect()
        self.check()


Disks.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_disks_have_what_was_written_to_them = Disks.TestCase


@pytest.fixture
def base(tmp_path):
    (tmp_path / "disk").write_bytes(bytes(64 * BLOCK))
    return DiskBase(RawDisk(tmp_path / "disk"))


def test_room_is_used_again(base):
    disk = MachineDisk(base, DiskContent(base, {}))
    block = [memoryview(bytes([1]) * BLOCK)]
    for number in range(500):
        moment = disk.freeze()
        disk.pwritev(block, number % 8 * BLOCK)
        del moment
    gc.collect()
    assert os.fstat(base.store.descriptor).st_size <= 20 * BLOCK


def test_an_image_is_closed_with_its_last_disk(base):
    disks = [MachineDisk(base, DiskContent(base, {})) for _ in range(2)]
    disks[0].close()
    disks[0].close()
    assert read_one(disks[1]) == b"\0"
    del disks[1]
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        base.image.preadv([memoryview(bytearray(1))], 0)


def read_one(disk):
    data = bytearray(1)
    disk.preadv([memoryview(data)], 0)
    return bytes(data)


def test_what_cannot_be_written_is_an_error_of_the_medium(base, monkeypatch):
    disk = MachineDisk(base, DiskContent(base, {}))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(OSError, match="No space left"):
        disk.pwritev([memoryview(bytes(512))], 0)
