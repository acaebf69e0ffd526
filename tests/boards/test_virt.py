"""The board `virt`: who is where, who interrupts whom, and that it can be saved."""

import threading
import time

import pytest

from anyvirt.boards import virt_map
from anyvirt.boards.riscv_boot_rom import Handover, Mode, boot_rom
from anyvirt.boards.virt_map import HartInterrupt, Range
from anyvirt.devices.bus import StateError
from anyvirt.devices.cfi_flash import BLOCK_SIZE
from anyvirt.devices.test_finisher import Finish, Outcome
from anyvirt.errors import UsageError

from ..devices.qtest import Qtest
from .boards import EPOCH, Machine, Scratch

UART, PLIC, CLINT, RTC, TEST, FLASH = 0x1000_0000, 0xC00_0000, 0x200_0000, 0x10_1000, 0x10_0000, 0x2000_0000


def pending(machine, hart):
    """The interrupts of a hart that are pending, as mip shows them."""
    return {number for number, wire in machine.board.interrupts[hart].items() if wire.level}


def let_through(machine, source, context):
    machine.write(PLIC + 4 * source, 1)
    machine.write(PLIC + 0x2000 + 0x80 * context + source // 32 * 4, 1 << source % 32)


def test_the_uart_prints_and_interrupts_through_the_plic():
    machine = Machine()
    for byte in b"hello\n":
        machine.write(UART, byte, 1)
    assert bytes(machine.printed) == b"hello\n"
    let_through(machine, virt_map.Interrupt.UART, 3)
    machine.write(UART + 1, 1, 1)
    assert machine.board.uart.input(b"x") == 1
    assert pending(machine, 1) == {HartInterrupt.SUPERVISOR_EXTERNAL}
    assert not pending(machine, 0)
    assert machine.read(PLIC + 0x203004) == virt_map.Interrupt.UART
    assert not pending(machine, 1)
    assert machine.read(UART, 1) == ord("x")
    machine.write(PLIC + 0x203004, virt_map.Interrupt.UART)
    assert not pending(machine, 1)


def test_software_and_timer_interrupts_reach_their_hart():
    machine = Machine(harts=3)
    machine.write(CLINT + 4, 1)
    machine.write(CLINT + 0x4010, 10, 8)
    assert [pending(machine, hart) for hart in range(3)] == [set(), {HartInterrupt.MACHINE_SOFTWARE}, set()]
    machine.clock.advance_to(999)
    assert not pending(machine, 2)
    machine.clock.advance_to(1000)
    assert pending(machine, 2) == {HartInterrupt.MACHINE_TIMER}
    assert machine.board.clint.mtime() == machine.read(CLINT + 0xBFF8, 8) == 10


def test_the_real_time_clock_shows_the_epoch_and_its_alarm_interrupts():
    machine = Machine()
    low, high = machine.read(RTC), machine.read(RTC + 4)
    assert high << 32 | low == EPOCH
    let_through(machine, virt_map.Interrupt.RTC, 0)
    machine.write(RTC + 0x10, 1)
    machine.write(RTC + 0x0C, (EPOCH + 500) >> 32)
    machine.write(RTC + 0x08, (EPOCH + 500) & 0xFFFF_FFFF)
    machine.clock.advance_to(499)
    assert not pending(machine, 0)
    machine.clock.advance_to(500)
    assert pending(machine, 0) == {HartInterrupt.MACHINE_EXTERNAL}


def test_a_guest_turns_the_machine_off_and_nothing_that_it_printed_is_lost():
    machine = Machine()
    for byte in b"bye":
        machine.write(UART, byte, 1)
    assert not machine.printed
    machine.write(TEST, 0x5555)
    assert bytes(machine.printed) == b"bye"
    machine.write(TEST, 0x1234_3333)
    machine.write(TEST, 0x7777)
    assert machine.finishes == [Finish(Outcome.PASS), Finish(Outcome.FAIL, 0x1234), Finish(Outcome.RESET)]


def test_flash_is_there_where_content_is_given():
    content = bytearray(b"\xff" * BLOCK_SIZE)
    machine = Machine(flash=[bytearray(BLOCK_SIZE), content])
    machine.write(FLASH + 0x200_0000, 0x400040)
    machine.write(FLASH + 0x200_0000, 0x1234_5678)
    assert content[:4] == bytes.fromhex("78563412")
    assert Machine().memory.mapping_at(FLASH) is None


def test_flash_that_is_bytes_is_a_rom():
    machine = Machine(flash=[b"\x13\x00\x00\x00" * 100, bytearray(BLOCK_SIZE)])
    machine.write(FLASH, 0x980098)
    assert machine.read(FLASH) == 0x13
    assert machine.memory.fetch(FLASH + 4, 4) == b"\x13\x00\x00\x00"
    assert list(machine.board.devices)[-1] == "flash1"
    assert b"flash@22000000" in machine.board.device_tree()


def test_virtio_mmio_slots_are_filled_from_below():
    machine, wires = Machine(), []

    def make(wire):
        wires.append(wire)
        return Scratch()

    assert [machine.read(0x1000_1000 + slot * 0x1000 + 8) for slot in range(8)] == [0] * 8
    assert machine.read(0x1000_8000) == 0x74726976
    with pytest.raises(UsageError, match="a device uart already"):
        machine.board.attach_virtio_mmio("uart", make, slot=0)
    assert machine.read(0x1000_1000) == 0x74726976
    wires.clear()
    device = machine.board.attach_virtio_mmio("disk", make)
    machine.board.attach_virtio_mmio("net", make, slot=5)
    machine.board.attach_virtio_mmio("rng", make)
    assert wires == [machine.board.wire(number) for number in (1, 6, 2)]
    machine.write(0x1000_1000, 7, 1)
    assert device.value == 7
    with pytest.raises(UsageError, match="no free virtio-mmio slot 5 for other"):
        machine.board.attach_virtio_mmio("other", make, slot=5)
    for number in range(5):
        machine.board.attach_virtio_mmio(f"more{number}", make)
    with pytest.raises(UsageError, match="no free virtio-mmio slot for other; it has 8 in all"):
        machine.board.attach_virtio_mmio("other", make)


def test_the_pci_bridge_has_four_wires_and_places_bars():
    machine = Machine()
    bridge, bar = Scratch(), Scratch()
    machine.board.attach_pci(bridge)
    assert machine.board.devices["pci"] is bridge
    machine.write(0x3FFF_FFFF, 1, 1)
    assert bridge.value == 1
    for address in (virt_map.PCI_IO.start, virt_map.PCI_MEMORY.start, virt_map.PCI_MEMORY_64.start):
        machine.board.memory_map.place(address, 0x100, bar)
        machine.write(address + 0xFF, address % 251, 1)
        assert bar.value == address % 251
        machine.board.memory_map.remove(address, 0x100)
        assert machine.memory.mapping_at(address) is None
    machine.write(PLIC + 4 * 35, 1)
    machine.write(PLIC + 0x2004, 1 << 35 - 32)
    machine.board.pci_wires[3].set(True)
    assert pending(machine, 0) == {HartInterrupt.MACHINE_EXTERNAL}


def test_a_bar_may_move_as_often_as_a_guest_likes():
    machine, bar = Machine(), Scratch()
    devices = len(machine.memory._devices)
    for number in range(100):
        place = virt_map.PCI_MEMORY.start + number * 16
        machine.board.memory_map.place(place, 16, bar)
        machine.board.memory_map.remove(place, 16)
    assert len(machine.memory._devices) == devices + 1


def test_devices_are_used_by_one_thread_at_a_time():
    class Counter(Scratch):
        inside = 0

        def write(self, offset, size, value):
            assert not self.inside
            self.inside += 1
            time.sleep(0)
            self.value += 1
            self.inside -= 1

    machine, counter = Machine(), Counter()
    machine.board.attach("counter", counter, Range(0x5000_0000, 8))

    def use():
        for _ in range(500):
            machine.write(0x5000_0000, 1)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    with machine.board.lock:
        before = counter.value
        time.sleep(0.01)
        assert counter.value == before
    for thread in threads:
        thread.join()
    assert counter.value == 2000


def test_names_and_places_are_taken_once():
    machine = Machine()
    with pytest.raises(UsageError, match="has a device uart already"):
        machine.board.attach("uart", Scratch(), Range(0x5000_0000, 8))
    with pytest.raises(OSError, match="something is at"):
        machine.board.attach("other", Scratch(), Range(UART, 8))
    assert "other" not in machine.board.devices


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"harts": 0}, "1 to 512 CPUs, not 0"),
        ({"harts": 513}, "1 to 512 CPUs, not 513"),
        ({"ram_size": 4097}, "whole pages"),
        ({"ram_size": 15 << 30}, "up to 14 GiB"),
        ({"flash": [bytearray(BLOCK_SIZE)] * 3}, "2 banks of flash, not 3"),
        ({"flash": [bytearray(3 * BLOCK_SIZE)]}, "up to 32 MiB, not 786432 bytes"),
        ({"flash": [bytearray(64 << 20)]}, "up to 32 MiB, not 67108864 bytes"),
        ({"flash": [b""]}, "not 0 bytes"),
    ],
)
def test_what_the_board_cannot_have_is_one_sentence(options, message):
    with pytest.raises(UsageError, match=message):
        Machine(**options)


def use(machine):
    """Bring every device into a state of its own."""
    for address, value, size in (
        *((UART + 1, 5, 1), (UART + 7, 0x5A, 1), (PLIC + 40, 3, 4), (PLIC + 0x2000, 1 << 10, 4)),
        *((CLINT, 1, 4), (CLINT + 0x4000, 5000, 8), (RTC + 8, 77, 4), (FLASH, 0x980098, 4)),
    ):
        machine.write(address, value, size)
    machine.board.uart.input(b"a")
    machine.clock.advance_to(123_456)


def test_a_saved_board_goes_on_as_another():
    first, second = (Machine(flash=[bytearray(BLOCK_SIZE)]) for _ in range(2))
    use(first)
    state = first.board.save_state()
    second.clock.advance_to(first.clock.now())
    second.board.load_state(state)
    assert second.board.save_state() == state
    for when in (400_000, 600_000, 10_000_000):
        for machine in (first, second):
            machine.clock.advance_to(when)
        assert [pending(first, hart) for hart in (0, 1)] == [pending(second, hart) for hart in (0, 1)]
    assert pending(first, 0) == {
        HartInterrupt.MACHINE_SOFTWARE,
        HartInterrupt.MACHINE_TIMER,
        HartInterrupt.MACHINE_EXTERNAL,
    }
    assert first.board.save_state() == second.board.save_state()


def test_a_state_that_does_not_fit_changes_nothing():
    machine = Machine(flash=[bytearray(BLOCK_SIZE)])
    use(machine)
    before = machine.board.save_state()
    other = Machine(flash=[bytearray(BLOCK_SIZE)]).board.save_state()
    for device in machine.board.devices:
        damaged = {**other, "devices": {**other["devices"], device: {"version": 99}}}
        with pytest.raises(StateError, match="version 99"):
            machine.board.load_state(damaged)
        assert machine.board.save_state() == before
    with pytest.raises(StateError, match="another board: the device flash0 was not there"):
        machine.board.load_state(Machine().board.save_state())


def test_reset_reaches_every_device():
    machine = Machine(flash=[bytearray(BLOCK_SIZE)])
    scratch = Scratch()
    machine.board.attach("scratch", scratch, Range(0x5000_0000, 1))
    use(machine)
    scratch.value = 1
    machine.board.reset()
    assert scratch.value == 0
    assert machine.board.clint.mtime() == 0
    assert (machine.read(UART + 1, 1), machine.read(PLIC + 40), machine.read(FLASH)) == (0, 0, 0)
    assert not pending(machine, 0)


def test_the_boot_rom_hands_over_as_qemu_s_does(tmp_path):
    qemu = Qtest(tmp_path)
    try:
        theirs = b"".join(qemu.read(0x1000 + offset, 8).to_bytes(8, "little") for offset in range(0, 88, 8))
    finally:
        qemu.close()
    firmware, device_tree = (int.from_bytes(theirs[at : at + 8], "little") for at in (24, 32))
    next_stage, next_mode = (int.from_bytes(theirs[at : at + 8], "little") for at in (56, 64))
    ours = boot_rom(Handover(firmware, device_tree, next_stage, Mode(next_mode)))
    assert ours[:24] == theirs[:24]
    assert ours == theirs


def test_harts_begin_in_the_boot_rom():
    machine = Machine()
    handover = Handover(virt_map.RAM_START, machine.board.load_device_tree(), next_stage=0x8020_0000)
    for _ in range(2):
        assert machine.board.install_boot_rom(handover) == 0x1000
    assert machine.read(0x1000 + 24, 8) == virt_map.RAM_START
    assert machine.memory.read(handover.device_tree, 4) == bytes.fromhex("d00dfeed")
    assert handover.device_tree % (2 << 20) == 0


def test_what_is_behind_a_bus_is_saved_with_the_board():
    machine, other = Machine(), Machine()
    for one in (machine, other):
        one.board.keep("behind", Scratch())
        with pytest.raises(UsageError, match="has a device behind already"):
            one.board.keep("behind", Scratch())
    machine.board.devices["behind"].write(0, 4, 77)
    other.board.load_state(machine.board.save_state())
    assert other.board.devices["behind"].read(0, 4) == 77
    other.board.reset()
    assert other.board.devices["behind"].read(0, 4) == 0
