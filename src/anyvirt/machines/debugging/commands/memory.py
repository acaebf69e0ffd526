"""Memory and code: dumps by virtual and physical addresses, disassembly, page tables, calls, files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.cpu.disassembly import instruction_at
from anyvirt.errors import AnyvirtError, UsageError
from anyvirt.machines.debugging.commands.arguments import Format, format_of
from anyvirt.machines.debugging.commands.table import Completion, Section, command
from anyvirt.machines.debugging.page_walk import explain, mappings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyvirt.machines.debugging.monitor import Monitor
    from anyvirt.machines.memory_windows import PhysicalMemory

_LINE_BYTES = 16
_LINES = 10
_WORD = 8
_LONGEST_STRING = 4096
_MOST_FRAMES = 64
_LARGEST_FRAME = 1 << 20
_LINK, _FRAME_POINTER = 1, 8
_USUAL = Format(1, "x", 4)
_MOST_FILE = 1 << 30


@command("x", usage="[/FORMAT] ADDRESS", section=Section.MEMORY, repeats=True)
def show_memory(monitor: Monitor, text: str) -> str:
    """Show memory at a virtual address, as gdb does: `x/8xg $sp`, `x/5i $pc`, `x/s ADDRESS`.

    The format is a count, a letter (x hexadecimal, d signed, u unsigned, o octal, t binary, c characters, s a
    string, i instructions) and a size (b 1, h 2, w 4, g 8 bytes).
    """
    return _dump(monitor, text, monitor.hart.memory)


@command("xp", usage="[/FORMAT] ADDRESS", section=Section.MEMORY, repeats=True)
def show_physical(monitor: Monitor, text: str) -> str:
    """As `x`, at a physical address; devices are read."""
    return _dump(monitor, text, monitor.machine.memory)


def _dump(monitor: Monitor, text: str, memory: PhysicalMemory) -> str:
    form, rest = format_of(text, _USUAL)
    address = monitor.value(rest) if rest else monitor.hart.pc
    if form.letter == "i":
        return disassembly(monitor, address, form.count)
    if form.letter == "s":
        return "\n".join(_strings(memory, address, form.count))
    if form.letter == "c":
        form = Format(form.count, "c", 1)
    per_line = max(_LINE_BYTES // form.size, 1)
    lines = []
    for start in range(0, form.count, per_line):
        here = address + start * form.size
        shown = [
            _item(memory.read(here + index * form.size, form.size), form)
            for index in range(min(per_line, form.count - start))
        ]
        lines.append(f"{here:#x}: {' '.join(shown)}")
    return "\n".join(lines)


def _item(data: bytes, form: Format) -> str:
    value, bits = int.from_bytes(data, "little"), 8 * form.size
    match form.letter:
        case "d":
            return str(value - (value >> bits - 1 << bits))
        case "u":
            return str(value)
        case "o":
            return f"{value:#o}"
        case "t":
            return f"{value:0{bits}b}"
        case "c":
            return repr(chr(value)) if 32 <= value < 127 else f"{value:#04x}"
    return f"0x{value:0{2 * form.size}x}"


def _strings(memory: PhysicalMemory, address: int, count: int) -> Iterator[str]:
    for _ in range(count):
        content = bytearray()
        while len(content) < _LONGEST_STRING and (byte := memory.read(address + len(content), 1)) != b"\0":
            content += byte
        yield f'{address:#x}: "{content.decode("utf-8", "backslashreplace")}"'
        address += len(content) + 1


@command("disassemble", "dis", "list", "l", usage="[ADDRESS [, COUNT]]", section=Section.MEMORY, repeats=True)
def disassemble(monitor: Monitor, text: str) -> str:
    """Show instructions from an address on: ten from pc on unless given."""
    address, comma, count = text.partition(",")
    start = monitor.value(address) if address.strip() else monitor.hart.pc
    return disassembly(monitor, start, monitor.value(count) if comma else _LINES)


def disassembly(monitor: Monitor, address: int, count: int) -> str:
    """Instructions, each on its line, with `=>` where the hart is."""
    lines = []
    for _ in range(count):
        instruction = instruction_at(monitor.hart.cpu, address)
        mark = "=>" if address == monitor.hart.pc else "  "
        symbol = monitor.symbols.at(address)
        place = f"{address:#x} <{symbol}>" if symbol else f"{address:#x}"
        lines.append(f"{mark} {place}: {instruction.code.hex():<8}  {instruction.shown}")
        address += instruction.length
    return "\n".join(lines)


@command("write", "poke", usage="ADDRESS, BYTES, EXPRESSION", section=Section.MEMORY)
def write_memory(monitor: Monitor, text: str) -> str:
    """Store a number of 1, 2, 4 or 8 bytes at a virtual address."""
    return _write(monitor, text, monitor.hart.memory)


@command("writep", usage="ADDRESS, BYTES, EXPRESSION", section=Section.MEMORY)
def write_physical(monitor: Monitor, text: str) -> str:
    """As `write`, at a physical address; devices take it as a store."""
    return _write(monitor, text, monitor.machine.memory)


def _write(monitor: Monitor, text: str, memory: PhysicalMemory) -> str:
    words = text.split(",")
    if len(words) != 3:
        raise UsageError("write `write ADDRESS, BYTES, EXPRESSION`")
    address, size, value = (monitor.value(word) for word in words)
    if size not in (1, 2, 4, _WORD):
        raise UsageError(f"numbers have 1, 2, 4 or 8 bytes, not {size}")
    memory.write(address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
    return ""


@command("walk", "page", "translate", usage="ADDRESS", section=Section.MEMORY)
def walk(monitor: Monitor, text: str) -> str:
    """Show how an address is translated: each level's entry with its flags, and what the hart may do."""
    return "\n".join(explain(monitor.hart, monitor.value(text)))


@command("mappings", "mem", "tlb", usage="", section=Section.MEMORY, completion=Completion.NOTHING)
def show_mappings(monitor: Monitor, text: str) -> str:
    """Show what the hart's page tables map, ranges with the same flags together."""
    return "\n".join(mappings(monitor.hart))


@command("backtrace", "bt", "where", usage="", section=Section.MEMORY, completion=Completion.NOTHING)
def backtrace(monitor: Monitor, text: str) -> str:
    """Show the calls that the hart is in, by the chain of frame pointers.

    Code has to be compiled to keep them (-fno-omit-frame-pointer), as RISC-V kernels are.
    """
    return "\n".join(f"#{number} {monitor.place(link)}" for number, link in enumerate(_calls(monitor)))


def _calls(monitor: Monitor) -> Iterator[int]:
    """Where the hart is, and where each function that it is in returns to."""
    hart = monitor.hart
    frame, link = hart.x[_FRAME_POINTER], hart.x[_LINK]
    yield hart.pc
    if monitor.symbols.at(hart.pc) in monitor.symbols:
        # The frame of a function that begins here is not made yet.
        yield link
    for number in range(_MOST_FRAMES):
        try:
            above, upper = (
                int.from_bytes(hart.memory.read(frame - distance, _WORD), "little")
                for distance in (2 * _WORD, _WORD)
            )
        except (AnyvirtError, OverflowError):
            return
        if number == 0 and frame < upper < frame + _LARGEST_FRAME:
            # A function that calls none keeps the frame pointer alone.
            above, upper = upper, link
        if not upper or above <= frame:
            return
        yield upper
        frame = above


@command("dump", "memsave", usage="FILE ADDRESS, BYTES", section=Section.MEMORY, completion=Completion.FILE)
def dump_to_file(monitor: Monitor, text: str) -> str:
    """Write memory from a virtual address on to a file."""
    return _save(monitor, text, monitor.hart.memory)


@command("dumpp", "pmemsave", usage="FILE ADDRESS, BYTES", section=Section.MEMORY, completion=Completion.FILE)
def dump_physical(monitor: Monitor, text: str) -> str:
    """As `dump`, from a physical address on."""
    return _save(monitor, text, monitor.machine.memory)


def _save(monitor: Monitor, text: str, memory: PhysicalMemory) -> str:
    name, _, rest = text.partition(" ")
    address, comma, length = rest.partition(",")
    if not comma:
        raise UsageError("write `dump FILE ADDRESS, BYTES`")
    size = monitor.value(length)
    if size > _MOST_FILE:
        raise UsageError(f"{size} bytes are too many to write at once")
    data = memory.read(monitor.value(address), size)
    try:
        Path(name).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{name} cannot be written: {error.strerror}") from None
    return f"{size} bytes are in {name}"


@command("load", "restore", usage="FILE ADDRESS", section=Section.MEMORY, completion=Completion.FILE)
def load_file(monitor: Monitor, text: str) -> str:
    """Put the content of a file into memory, at a physical address."""
    name, _, address = text.partition(" ")
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
    start = monitor.value(address)
    monitor.machine.memory.write(start, data)
    return f"{len(data)} bytes are at {start:#x}"
