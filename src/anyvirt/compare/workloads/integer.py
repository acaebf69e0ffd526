"""Integer arithmetic: SHA-256 (FIPS 180-4) of 4 KiB in each round, compared with the digest known for it."""

from anyvirt.compare.workloads.runtime import allocate, begin, finish
from anyvirt.jit.system import text
from anyvirt.typed import byte_swap, load32, range, rotate_right, store8, store32, u8, u32, u64

MESSAGE_SIZE = 4096
BLOCK_SIZE = 64
_SCHEDULE = MESSAGE_SIZE + BLOCK_SIZE
"""Offset of the message schedule, behind the message and the block of padding."""
_STATE = _SCHEDULE + 256
_MEMORY = _STATE + 32

_ROUND_CONSTANTS = tuple(
    u32(value)
    for value in (
        0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
        0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
        0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
        0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
        0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
        0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
        0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
        0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
    )
)  # fmt: skip
_INITIAL_STATE = tuple(
    u32(value)
    for value in (
        0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
    )
)  # fmt: skip
DIGEST_OF_MESSAGE = tuple(
    u32(value)
    for value in (
        0xC741EEE9, 0x3580A334, 0xBAE70220, 0x8E5C0595, 0xD8E32EB0, 0x7D562C52, 0xD56CA5F8, 0x6E78F8A8,
    )
)  # fmt: skip
"""SHA-256 of the bytes that `write_message` makes."""


def main(count: u64, arguments: u64) -> u64:
    """Hash the message once in each round."""
    rounds = begin(text(b"integer "), count, arguments)
    memory = allocate(u64(_MEMORY))
    write_message(memory, u64(MESSAGE_SIZE))
    wrong = u64(0)
    for _ in range(rounds):
        hash_message(memory, u64(MESSAGE_SIZE))
        wrong += differs(memory + _STATE)
    return finish(wrong, rounds)


def write_message(memory: u64, size: u64) -> None:
    """A message of `size` bytes, a multiple of the block size, followed by the padding of SHA-256."""
    for index in range(size):
        store8(memory + index, u8(index * 131 + 17))
    padding = memory + size
    store8(padding, u8(0x80))
    for index in range(u64(1), u64(60)):
        store8(padding + index, u8(0))
    store32(padding + 60, byte_swap(u32(size * 8)))


def hash_message(memory: u64, size: u64) -> None:
    """Leave the digest of the padded message in the state."""
    for index in range(u64(0), u64(8)):
        store32(memory + _STATE + index * 4, _INITIAL_STATE[index])
    for offset in range(u64(0), size + BLOCK_SIZE, BLOCK_SIZE):
        compress(memory + offset, memory + _SCHEDULE, memory + _STATE)


def compress(block: u64, schedule: u64, state: u64) -> None:
    """The compression function (section 6.2.2)."""
    expand(block, schedule)
    a, b, c, d = load32(state), load32(state + 4), load32(state + 8), load32(state + 12)
    e, f, g, h = load32(state + 16), load32(state + 20), load32(state + 24), load32(state + 28)
    for index in range(u64(0), u64(64)):
        big_sigma_1 = rotate_right(e, u32(6)) ^ rotate_right(e, u32(11)) ^ rotate_right(e, u32(25))
        choice = (e & f) ^ (~e & g)
        first = h + big_sigma_1 + choice + _ROUND_CONSTANTS[index] + load32(schedule + index * 4)
        big_sigma_0 = rotate_right(a, u32(2)) ^ rotate_right(a, u32(13)) ^ rotate_right(a, u32(22))
        majority = (a & b) ^ (a & c) ^ (b & c)
        h, g, f, e = g, f, e, d + first
        d, c, b, a = c, b, a, first + big_sigma_0 + majority
    add_to(state, a)
    add_to(state + 4, b)
    add_to(state + 8, c)
    add_to(state + 12, d)
    add_to(state + 16, e)
    add_to(state + 20, f)
    add_to(state + 24, g)
    add_to(state + 28, h)


def expand(block: u64, schedule: u64) -> None:
    """The 64 words of the message schedule."""
    for index in range(u64(0), u64(64), 4):
        store32(schedule + index, byte_swap(load32(block + index)))
    for place in range(schedule + 64, schedule + 256, 4):
        early, late = load32(place - 60), load32(place - 8)
        sigma_0 = rotate_right(early, u32(7)) ^ rotate_right(early, u32(18)) ^ (early >> 3)
        sigma_1 = rotate_right(late, u32(17)) ^ rotate_right(late, u32(19)) ^ (late >> 10)
        store32(place, load32(place - 64) + sigma_0 + load32(place - 28) + sigma_1)


def add_to(address: u64, value: u32) -> None:
    """Add to a word in memory."""
    store32(address, load32(address) + value)


def differs(state: u64) -> u64:
    """0 when the digest in memory is the known one, 1 otherwise."""
    difference = u32(0)
    for index in range(u64(0), u64(8)):
        difference |= load32(state + index * 4) ^ DIGEST_OF_MESSAGE[index]
    return u64(0) if difference == 0 else u64(1)
