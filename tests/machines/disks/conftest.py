"""A machine whose program reads a counter from its disk, adds one, and stores it somewhere else, for ever."""

import struct
from pathlib import Path

import pytest

import anyvirt
from anyvirt.boards.virt_map import RAM_START
from anyvirt.devices.virtio.blk import BlkFeature, VirtioBlk
from anyvirt.devices.virtio.mmio import Register, VirtioMmio
from anyvirt.isa.riscv64_system import riscv64_system
from anyvirt.machines.disks.board import ExpectedDisk
from anyvirt.machines.disks.image import open_image

PROGRAM = """
    auipc s0, 0x11          # the available ring
    auipc s1, 0x13          # headers, and the data at 0x100
    addi s1, s1, -4
    lui s2, 0x10001         # the controller
loop:
    lhu t0, 2(s0)
    addi t0, t0, 1
    sh t0, 2(s0)
    sw zero, 0x50(s2)       # read
    ld t1, 0x100(s1)
    addi t1, t1, 1
    sd t1, 0x100(s1)
    andi t2, t1, 15
    slli t2, t2, 7
    sd t2, 0x18(s1)         # to one of sixteen blocks of 64 KiB
    lhu t0, 2(s0)
    addi t0, t0, 1
    sh t0, 2(s0)
    sw zero, 0x50(s2)       # write
    sd t2, 0x8(s1)          # from where it is read next
    jal zero, loop
"""
BEFORE, ROUND = 4 + 6, 16
"""Instructions of the boot ROM and in front of the loop, and of the loop."""
DISK = 1 << 20
DESCRIPTORS, AVAILABLE, USED, HEADERS = (
    RAM_START + offset for offset in (0x10000, 0x11000, 0x12000, 0x13000)
)
_IN, _OUT, _NEXT, _WRITE = 0, 1, 1, 2


class Counting:
    """What the tests ask of such machines."""

    def __init__(self, firmware):
        self.firmware = firmware

    def machine(self, path, *, format="raw", **options):
        """A new one, on an image."""

        def attach(board):
            self.attach(board, open_image(Path(path), format=format, read_only=False))

        options = {"tier": "interpreter", "memory": "4M", "seed": 1} | options
        machine = anyvirt.Machine(firmware=self.firmware, attach=attach, **options)
        self._drive(machine)
        return machine

    def attach(self, board, disk):
        board.attach_virtio_mmio(
            "disk", lambda wire: VirtioMmio(VirtioBlk(board.memory, disk), interrupt=wire)
        )

    def expect(self, board):
        """What machines that are restored or copied are given."""
        self.attach(board, ExpectedDisk())

    def restore(self, directory, **options):
        return anyvirt.Machine.restore(directory, attach=self.expect, **{"tier": "interpreter"} | options)

    def clone(self, machine, **options):
        return machine.clone(attach=self.expect, **options)

    def disk(self, machine):
        return machine.board.devices["disk"].device.disk

    def read(self, machine, offset=0, length=None):
        disk = self.disk(machine)
        data = bytearray(disk.size - offset if length is None else length)
        disk.preadv([memoryview(data)], offset)
        return bytes(data)

    def write(self, machine, data, offset):
        self.disk(machine).pwritev([memoryview(data)], offset)

    def rounds(self, machine, count):
        """Let it count further, by so much."""
        machine.run(instructions=count * ROUND)

    def counts(self, machine):
        """The last sixteen numbers that are on the disk, in their order."""
        return sorted(counts_in(self.read(machine)))

    def _drive(self, machine):
        """What a driver does before it uses a disk (VIRTIO 1.2, section 3.1)."""
        device, memory = machine.board.devices["disk"], machine.board.memory
        memory.write(DESCRIPTORS, b"".join(struct.pack("<QIHH", *one) for one in _descriptors()))
        memory.write(AVAILABLE, struct.pack("<HH8H", 1, 0, *[0, 3] * 4))  # no interrupts
        memory.write(HEADERS, struct.pack("<IIQIIQ", _IN, 0, 0, _OUT, 0, 0))
        for register, value in (
            (Register.STATUS, 0),
            (Register.STATUS, 3),
            (Register.DRIVER_FEATURES_SEL, 0),
            (Register.DRIVER_FEATURES, BlkFeature.FLUSH | BlkFeature.CONFIG_WCE),
            (Register.DRIVER_FEATURES_SEL, 1),
            (Register.DRIVER_FEATURES, 1),
            (Register.STATUS, 11),
            (Register.QUEUE_SEL, 0),
            (Register.QUEUE_NUM, 8),
            (Register.QUEUE_DESC_LOW, DESCRIPTORS),
            (Register.QUEUE_DRIVER_LOW, AVAILABLE),
            (Register.QUEUE_DEVICE_LOW, USED),
            (Register.QUEUE_READY, 1),
            (Register.STATUS, 15),
        ):
            device.write(register, 4, value)
        assert device.device.is_live
        machine.run(instructions=BEFORE)


def _descriptors():
    for header, direction in ((0, _WRITE), (0x10, 0)):
        first = 3 * (header // 0x10)
        yield HEADERS + header, 16, _NEXT, first + 1
        yield HEADERS + 0x100, 512, _NEXT | direction, first + 2
        yield HEADERS + 0x20, 1, _WRITE, 0


def counts_in(content):
    return [int.from_bytes(content[start : start + 8], "little") for start in range(0, DISK, 1 << 16)]


@pytest.fixture(scope="session")
def counting(tmp_path_factory):
    path = tmp_path_factory.mktemp("counting") / "counting.bin"
    path.write_bytes(riscv64_system.assemble(PROGRAM, RAM_START))
    return Counting(path)


@pytest.fixture
def image(tmp_path):
    """A raw disk with something on it."""
    path = tmp_path / "data.img"
    path.write_bytes(b"".join(bytes(8) + bytes([number]) * ((1 << 16) - 8) for number in range(16)))
    return path
