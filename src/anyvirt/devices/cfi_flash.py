"""Parallel NOR flash with Intel's command set: two chips of 16 bits each, side by side on a bus of 32 bits.

Chips as Intel's 28F128J3A (StrataFlash data sheet 290667): its identifiers, erase blocks and table for the
Common Flash Interface (JESD68; application note 646 for the extended table), with a larger write buffer.
Operations are done when the command has been written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from anyvirt.devices.saved_state import SavedState

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    from anyvirt.devices.bus import State

CHIPS = 2
BLOCK_SIZE = 256 << 10
"""Bytes of an erase block of the bank; a chip has half of each."""
BUFFER_WORDS = 512
"""Words of a chip's write buffer."""
_BLOCK_WORDS = BLOCK_SIZE // CHIPS // 2
_MANUFACTURER, _DEVICE = 0x89, 0x18
_ERASED = 0xFF
_ERASED_BLOCK = bytes([_ERASED]) * BLOCK_SIZE
_VERSION = 1


class Command(IntEnum):
    """What is written to a chip, in its lower byte (data sheet, command definitions)."""

    READ_ARRAY = 0xFF
    READ_IDENTIFIER = 0x90
    READ_QUERY = 0x98
    READ_STATUS = 0x70
    CLEAR_STATUS = 0x50
    WRITE_TO_BUFFER = 0xE8
    PROGRAM = 0x40
    PROGRAM_ALTERNATE = 0x10
    ERASE_BLOCK = 0x20
    LOCK_BITS = 0x60
    CONFIRM = 0xD0
    SET_LOCK = 0x01


class Status(IntFlag):
    """The status register (data sheet, status register definitions)."""

    PROGRAM_ERROR = 0x10
    ERASE_ERROR = 0x20
    READY = 0x80


class Output(IntEnum):
    """What reading a chip shows."""

    ARRAY = 0
    STATUS = 1
    IDENTIFIER = 2
    QUERY = 3


class Expected(IntEnum):
    """What the next write to a chip is."""

    COMMAND = 0
    PROGRAM_DATA = 1
    BUFFER_COUNT = 2
    BUFFER_DATA = 3
    BUFFER_CONFIRM = 4
    ERASE_CONFIRM = 5
    LOCK_CONFIRM = 6


_BEGUN: dict[int, Expected] = {
    Command.PROGRAM: Expected.PROGRAM_DATA,
    Command.PROGRAM_ALTERNATE: Expected.PROGRAM_DATA,
    Command.WRITE_TO_BUFFER: Expected.BUFFER_COUNT,
    Command.ERASE_BLOCK: Expected.ERASE_CONFIRM,
    Command.LOCK_BITS: Expected.LOCK_CONFIRM,
}
_SHOWN: dict[int, Output] = {
    Command.READ_IDENTIFIER: Output.IDENTIFIER,
    Command.READ_QUERY: Output.QUERY,
    Command.READ_STATUS: Output.STATUS,
}


def _query_table(words: int) -> dict[int, int]:
    """The answers of a chip in query mode, by word address (JESD68, section 4; application note 646)."""
    blocks = words // _BLOCK_WORDS
    block_units = _BLOCK_WORDS * 2 // 256
    primary = 0x31
    content = {
        0x10: b"QRY",
        0x13: (1).to_bytes(2, "little"),
        0x15: primary.to_bytes(2, "little"),
        # Voltages (tenths), and times as powers of two: typical, then largest as multiples of those.
        0x1B: bytes((0x27, 0x36, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0)),
        0x27: bytes(((words * 2).bit_length() - 1, 2, 0, (BUFFER_WORDS * 2).bit_length() - 1, 0)),
        0x2C: b"\x01" + (blocks - 1).to_bytes(2, "little") + block_units.to_bytes(2, "little"),
        primary: b"PRI11" + bytes(4) + b"\x00\x01\x00\x33\x00\x00",
    }
    return {start + position: byte for start, run in content.items() for position, byte in enumerate(run)}


@dataclass(slots=True)
class _Chip:
    """One chip: its half of each 32-bit word, and its command state."""

    content: memoryview
    """The bank's; of each 4 bytes this chip has 2."""
    lane: int
    query: dict[int, int]
    output: Output = Output.ARRAY
    expected: Expected = Expected.COMMAND
    status: int = int(Status.READY)
    block: int = 0
    """That the write buffer is for."""
    remaining: int = 0
    """Words that the write buffer still expects."""
    buffer: list[tuple[int, int]] = field(default_factory=list)
    """Word addresses and words."""

    def reset(self) -> None:
        """After power-on or a reset pulse."""
        self.output, self.expected, self.status = Output.ARRAY, Expected.COMMAND, int(Status.READY)
        self.block = self.remaining = 0
        self.buffer.clear()

    def read(self, address: int) -> int:
        """The word at a word address of this chip."""
        match self.output:
            case Output.ARRAY:
                position = 4 * address + 2 * self.lane
                return int.from_bytes(self.content[position : position + 2], "little")
            case Output.STATUS:
                return self.status
            case Output.QUERY:
                return self.query.get(address, 0)
        return {0: _MANUFACTURER, 1: _DEVICE}.get(address % _BLOCK_WORDS, 0)

    def write(self, address: int, word: int) -> None:
        """One write cycle."""
        match self.expected:
            case Expected.COMMAND:
                self._command(address, word & 0xFF)
            case Expected.PROGRAM_DATA:
                self._program(address, word)
                self.expected = Expected.COMMAND
            case Expected.BUFFER_COUNT:
                self._begin_buffer(address, word)
            case Expected.BUFFER_DATA:
                self._fill_buffer(address, word)
            case Expected.BUFFER_CONFIRM:
                self._finish(word, self._program_buffer)
            case Expected.ERASE_CONFIRM:
                self._finish(word, lambda: self._erase(address // _BLOCK_WORDS))
            case Expected.LOCK_CONFIRM:
                self._finish(Command.CONFIRM if word & 0xFF == Command.SET_LOCK else word, lambda: None)

    def _command(self, address: int, command: int) -> None:
        if command in _BEGUN:
            self.output, self.expected = Output.STATUS, _BEGUN[command]
            self.block = address // _BLOCK_WORDS
        elif command == Command.CLEAR_STATUS:
            self.status = int(Status.READY)
        else:
            # What is no command has the effect of READ_ARRAY.
            self.output = _SHOWN.get(command, Output.ARRAY)

    def _begin_buffer(self, address: int, word: int) -> None:
        count = (word & 0xFFFF) + 1
        if count > BUFFER_WORDS or address // _BLOCK_WORDS != self.block:
            self._fail()
            return
        self.remaining, self.expected = count, Expected.BUFFER_DATA
        self.buffer.clear()

    def _fill_buffer(self, address: int, word: int) -> None:
        if address // _BLOCK_WORDS != self.block or self.remaining == 0:
            self._fail()
            return
        self.buffer.append((address, word))
        self.remaining -= 1
        if self.remaining == 0:
            self.expected = Expected.BUFFER_CONFIRM

    def _finish(self, word: int, operation: Callable[[], None]) -> None:
        """The second cycle of a command: confirmation, or a wrong sequence."""
        if word & 0xFF == Command.CONFIRM:
            operation()
            self.expected = Expected.COMMAND
        else:
            self._fail()

    def _fail(self) -> None:
        """A wrong sequence of commands (data sheet, status register definitions: both errors)."""
        self.status |= int(Status.PROGRAM_ERROR | Status.ERASE_ERROR)
        self.expected = Expected.COMMAND
        self.buffer.clear()

    def _program(self, address: int, word: int) -> None:
        """Programming clears bits; erasing alone sets them."""
        position = 4 * address + 2 * self.lane
        self.content[position] &= word & 0xFF
        self.content[position + 1] &= word >> 8

    def _program_buffer(self) -> None:
        for address, word in self.buffer:
            self._program(address, word)
        self.buffer.clear()

    def _erase(self, block: int) -> None:
        start, end = block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE
        for byte in (2 * self.lane, 2 * self.lane + 1):
            self.content[start + byte : end : 4] = bytes([_ERASED]) * _BLOCK_WORDS


class CfiFlash:
    """A bank of flash over a buffer, which may be a mapped file.

    Reads change nothing: a board may let CPUs read `content` directly, as ROM, while `shows_array`; it hears
    of changes through `on_mode`. All writes have to come here.
    """

    def __init__(self, content: bytearray | memoryview | mmap.mmap, *, name: str = "flash") -> None:
        """`content`: whole blocks of BLOCK_SIZE, a power of two of them; erased flash is all ones."""
        size = len(content)
        if size < BLOCK_SIZE or size & size - 1:
            raise ValueError(f"{name}: flash has 256 KiB times a power of two, not {size} bytes")
        self.content = memoryview(content).cast("B")
        """The array, as the bus sees it."""
        self.on_mode: Callable[[bool], None] | None = None
        """Called with `shows_array` when that changes."""
        self._name = name
        self._size = size
        query = _query_table(size // CHIPS // 2)
        self._chips = [_Chip(self.content, lane, query) for lane in range(CHIPS)]
        self._shows_array = True

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def shows_array(self) -> bool:
        """Whether all that is read is the content."""
        return self._shows_array

    def reset(self) -> None:
        """See BusDevice.reset. The content stays."""
        for chip in self._chips:
            chip.reset()
        self._note_mode()

    def read(self, offset: int, size: int) -> int:
        """See BusDevice.read. Reading has no side effects in any mode."""
        end = min(offset + size, self._size)
        if self._shows_array:
            return int.from_bytes(self.content[offset:end], "little")
        value = 0
        for position in range(offset, end):
            chip = self._chips[position >> 1 & 1]
            byte = chip.read(position >> 2) >> 8 * (position & 1) & 0xFF
            value |= byte << 8 * (position - offset)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """See BusDevice.write. Each chip that the access reaches has one cycle for each word."""
        end = min(offset + size, self._size)
        position = offset
        while position < end:
            width = min(2 - position % 2, end - position)
            data = value >> 8 * (position - offset) & (1 << 8 * width) - 1
            # Lines that are not driven float high: they program nothing.
            word = data if width == 2 else data << 8 * (position % 2) | 0xFF << 8 * (1 - position % 2)
            self._chips[position >> 1 & 1].write(position >> 2, word)
            position += width
        self._note_mode()

    def _note_mode(self) -> None:
        shows_array = all(chip.output is Output.ARRAY for chip in self._chips)
        if shows_array is not self._shows_array:
            self._shows_array = shows_array
            if self.on_mode is not None:
                self.on_mode(shows_array)

    def save_state(self) -> State:
        """See BusDevice.save_state. Of the content, blocks that are not erased."""
        blocks = [bytes(self._block(number)) for number in range(self._size // BLOCK_SIZE)]
        numbers = [number for number, block in enumerate(blocks) if block != _ERASED_BLOCK]
        return {
            "version": _VERSION,
            "size": self._size,
            "block_numbers": numbers,
            "blocks": b"".join(blocks[number] for number in numbers),
            "chips": [_save_chip(chip) for chip in self._chips],
        }

    def load_state(self, state: State) -> None:
        """See BusDevice.load_state."""
        saved = SavedState(state, _VERSION, self._name)
        count = self._size // BLOCK_SIZE
        numbers = saved.some_numbers("block_numbers", count, (count - 1).bit_length())
        blocks = saved.data("blocks", len(numbers) * BLOCK_SIZE)
        chips = saved.value("chips")
        if saved.number("size", 64) != self._size or not isinstance(chips, list) or len(chips) != CHIPS:
            raise saved.misfit("size")
        self._chips = [self._restored(chip, old) for chip, old in zip(chips, self._chips, strict=True)]
        content = dict(zip(numbers, range(0, len(blocks), BLOCK_SIZE), strict=True))
        for number in range(count):
            start = content.get(number)
            self._block(number)[:] = _ERASED_BLOCK if start is None else blocks[start : start + BLOCK_SIZE]
        self._note_mode()

    def _block(self, number: int) -> memoryview:
        return self.content[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE]

    def _restored(self, state: object, old: _Chip) -> _Chip:
        saved = SavedState(state if isinstance(state, dict) else {}, _VERSION, f"a chip of {self._name}")
        bits = (self._size // CHIPS // 2 - 1).bit_length()
        addresses = saved.some_numbers("buffer_addresses", BUFFER_WORDS, bits)
        words = saved.numbers("buffer_words", len(addresses), 16)
        remaining = saved.number("remaining", BUFFER_WORDS.bit_length())
        expected = saved.number("expected", 3)
        if len(addresses) + remaining > BUFFER_WORDS or expected not in list(Expected):
            raise saved.misfit("buffer")
        return _Chip(
            old.content,
            old.lane,
            old.query,
            Output(saved.number("output", 2)),
            Expected(expected),
            saved.number("status", 8),
            saved.number("block", bits),
            remaining,
            list(zip(addresses, words, strict=True)),
        )


def _save_chip(chip: _Chip) -> State:
    return {
        "version": _VERSION,
        "output": int(chip.output),
        "expected": int(chip.expected),
        "status": chip.status,
        "block": chip.block,
        "remaining": chip.remaining,
        "buffer_addresses": [address for address, _ in chip.buffer],
        "buffer_words": [word for _, word in chip.buffer],
    }
