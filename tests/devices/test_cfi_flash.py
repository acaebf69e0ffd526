"""Flash: commands, programming that only clears bits, erasing, chips that are told different things."""

import mmap

import pytest

from anyvirt.devices.cfi_flash import BLOCK_SIZE, BUFFER_WORDS, CfiFlash

BOTH = 0x10001
READY, WRONG_SEQUENCE = 0x80 * BOTH, 0xB0 * BOTH


@pytest.fixture
def flash():
    content = bytearray(b"\xff" * BLOCK_SIZE) + bytearray(range(256)) * (BLOCK_SIZE // 256)
    return CfiFlash(content)


def command(flash, value, offset=0):
    flash.write(offset, 4, value * BOTH)


def test_at_first_it_shows_its_content(flash):
    assert flash.shows_array
    assert flash.read(BLOCK_SIZE + 1, 1) == 1
    assert flash.read(BLOCK_SIZE + 4, 8) == 0x0B0A_0908_0706_0504


def test_the_query_table_describes_the_bank(flash):
    command(flash, 0x98, 0x55 * 4)

    def query(word):
        value = flash.read(4 * word, 4)
        assert value >> 16 == value & 0xFFFF
        return value & 0xFF

    assert bytes(query(word) for word in (0x10, 0x11, 0x12)) == b"QRY"
    assert query(0x13) == 1
    extended = query(0x15) | query(0x16) << 8
    assert bytes(query(extended + n) for n in range(3)) == b"PRI"
    size, blocks = 1 << query(0x27), (query(0x2D) | query(0x2E) << 8) + 1
    block = (query(0x2F) | query(0x30) << 8) * 256
    assert 2 * size == flash.size
    assert blocks * block == size
    assert 1 << query(0x2A) == 2 * BUFFER_WORDS
    assert query(0x2C) == 1


def test_identifiers_and_locks(flash):
    command(flash, 0x90)
    assert [flash.read(4 * word, 4) for word in range(3)] == [0x89 * BOTH, 0x18 * BOTH, 0]
    assert flash.read(BLOCK_SIZE, 4) == 0x89 * BOTH


def test_programming_clears_bits_and_erasing_sets_them(flash):
    for value in (0x1234_5678, 0xFF00_FF00):
        command(flash, 0x40, 8)
        flash.write(8, 4, value)
        assert flash.read(0, 4) == READY
    command(flash, 0xFF)
    assert flash.read(8, 4) == 0x1200_5600
    command(flash, 0x20, 8)
    command(flash, 0xD0, 8)
    command(flash, 0xFF)
    assert flash.read(8, 4) == 0xFFFF_FFFF
    assert flash.read(BLOCK_SIZE, 4) == 0x0302_0100


def test_erasing_takes_the_block_that_is_addressed(flash):
    command(flash, 0x20, BLOCK_SIZE + 64)
    command(flash, 0xD0, BLOCK_SIZE + 64)
    command(flash, 0xFF)
    assert bytes(flash.content) == b"\xff" * 2 * BLOCK_SIZE


def test_a_buffer_is_programmed_when_it_is_confirmed(flash):
    command(flash, 0xE8, 0x100)
    assert flash.read(0x100, 4) == READY
    command(flash, 3, 0x100)
    for word in range(4):
        flash.write(0x100 + 4 * word, 4, 0x0101_0101 * (word + 1))
    assert flash.content[0x100] == 0xFF
    command(flash, 0xD0, 0x100)
    assert flash.read(0, 4) == READY
    command(flash, 0xFF)
    assert bytes(flash.content[0x100:0x110]) == b"".join(bytes([n]) * 4 for n in range(1, 5))


@pytest.mark.parametrize(
    "writes",
    [
        [(0x20, 0), (0x20, 0)],
        [(0x60, 0), (0x02, 0)],
        [(0xE8, 0), (BUFFER_WORDS, 0)],
        [(0xE8, 0), (0, BLOCK_SIZE)],
        [(0xE8, 0), (0, 0), (5, BLOCK_SIZE)],
        [(0xE8, 0), (0, 0), (5, 0), (0xFF, 0)],
    ],
)
def test_wrong_sequences_change_nothing_and_are_reported(flash, writes):
    before = bytes(flash.content)
    for value, offset in writes:
        command(flash, value, offset)
    assert flash.read(0, 4) == WRONG_SEQUENCE
    assert bytes(flash.content) == before
    command(flash, 0x50)
    command(flash, 0x70)
    assert flash.read(0, 4) == READY


def test_the_chips_are_commanded_apart(flash):
    flash.write(2, 2, 0x90)
    assert flash.read(0, 4) == 0x0089_FFFF
    flash.write(2, 2, 0xFF)
    flash.write(0, 2, 0x40)
    flash.write(0, 1, 0x12)
    flash.write(0, 2, 0xFF)
    assert flash.read(0, 4) == 0xFFFF_FF12


def test_a_board_hears_when_the_array_is_to_be_seen(flash):
    heard = []
    flash.on_mode = heard.append
    command(flash, 0x70)
    command(flash, 0x98)
    command(flash, 0xFF)
    command(flash, 0xFF)
    command(flash, 0x90)
    flash.reset()
    assert heard == [False, True, False, True]


def test_content_may_be_a_mapped_file(tmp_path):
    path = tmp_path / "flash.img"
    path.write_bytes(b"\xff" * BLOCK_SIZE)
    with path.open("r+b") as file:
        flash = CfiFlash(mmap.mmap(file.fileno(), 0))
    command(flash, 0x10)
    flash.write(0, 4, 0x600D_F00D)
    assert path.read_bytes()[:4] == bytes.fromhex("0df00d60")


def test_the_content_is_part_of_the_state(flash):
    command(flash, 0xE8)
    command(flash, 1)
    flash.write(0, 4, 0x1111_1111)
    state = flash.save_state()
    assert state["block_numbers"] == [1]
    other = CfiFlash(bytearray(2 * BLOCK_SIZE))
    other.load_state(state)
    for chip in (flash, other):
        chip.write(4, 4, 0x2222_2222)
        command(chip, 0xD0)
    assert bytes(flash.content) == bytes(other.content)
    assert bytes(other.content[:8]) == b"\x11\x11\x11\x11\x22\x22\x22\x22"


@pytest.mark.parametrize("size", [0, BLOCK_SIZE // 2, 3 * BLOCK_SIZE])
def test_sizes_that_no_bank_has(size):
    with pytest.raises(ValueError, match="256 KiB times a power of two"):
        CfiFlash(bytearray(size))
