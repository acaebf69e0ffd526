"""A static program for x86-64 Linux as the disk of a PC that boots into it: boot.S, then an image of memory.

The program finds its stack as execve(2) leaves it, and has of Linux write(2) and exit(2) only.
"""

import subprocess
from pathlib import Path

from anyvirt.cpu.memory import PAGE_SIZE, page_ceiling
from anyvirt.linux.elf import SegmentType, parse_elf

BOOT = Path(__file__).with_name("boot.S")
BOOT_ADDRESS = 0x7C00
SECTOR, PIECE = 512, 256 * 512
_STACK_SIZE = 1 << 20
_LOWEST, _HIGHEST = 1 << 20, 1 << 30


def write_disk(program, arguments, disk):
    """Write the disk that runs a program with arguments, the first of which is its name.

    Raises ValueError for a program that does not lie in the memory that boot.S maps.
    """
    data = Path(program).read_bytes()
    elf = parse_elf(data)
    segments = [segment for segment in elf.segments if segment.type == SegmentType.LOAD]
    start = min(segment.address for segment in segments) & -PAGE_SIZE
    end = page_ceiling(max(segment.address + segment.memory_size for segment in segments))
    block, stack = _stack_block([word.encode() for word in arguments], end + _STACK_SIZE)
    if start < _LOWEST or stack + len(block) > _HIGHEST:
        raise ValueError(f"{program} lies from {start:#x} to {end:#x}, which is not within the first GiB")
    image = bytearray(stack + len(block) - start)
    for segment in segments:
        place = segment.address - start
        image[place : place + segment.file_size] = data[segment.offset :][: segment.file_size]
    image[stack - start :] = block
    image += bytes(-len(image) % PIECE)
    symbols = {"LOAD": start, "PIECES": len(image) // PIECE, "ENTRY": elf.entry, "STACK": stack}
    Path(disk).write_bytes(_boot_sector(symbols, Path(disk).with_suffix(".boot")) + image)


def _stack_block(words, address):
    """The bytes at `address` of arguments and pointers to them, and the stack pointer, which is `address`."""
    strings = address + 8 * (len(words) + 4)
    pointers = [len(words)]
    for word in words:
        pointers.append(strings)
        strings += len(word) + 1
    # After the arguments and the environment, an empty auxiliary vector.
    block = b"".join(pointer.to_bytes(8, "little") for pointer in (*pointers, 0, 0, 0))
    return block + b"\0".join(words) + b"\0", address


def _boot_sector(symbols, output):
    definitions = [f"-D{name}={value:#x}" for name, value in symbols.items()]
    layout = f"-Wl,-Ttext={BOOT_ADDRESS:#x},--oformat=binary,--build-id=none"
    subprocess.run(["gcc", "-nostdlib", "-static", *definitions, layout, BOOT, "-o", output], check=True)
    sector = output.read_bytes()
    assert len(sector) == SECTOR
    return sector
