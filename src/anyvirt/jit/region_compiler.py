"""From the LLVM function of a region to an image (`anyvirt.jit.image_layout`), with fault and exit tables."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.jit.image_layout import EXIT, HEADER, PAIR, VALUE, Header, Place
from anyvirt.jit.llvm import host_machine, llvm
from anyvirt.jit.object_file import LinkError, SectionFlags, read_object
from anyvirt.jit.region import EXIT_VALUES, PAGES
from anyvirt.jit.region_flat import FIXUPS

if TYPE_CHECKING:
    from anyvirt.jit.object_file import ObjectFile, Relocation, Section
    from anyvirt.jit.region import Exit, RegionFunction

_RELATIVE = (2, 4)
"""R_X86_64_PC32 and R_X86_64_PLT32."""
_STACK_MAPS = ".llvm_stackmaps"
_MAP_HEADER = struct.Struct("<BBHIII")
_MAP_FUNCTION = struct.Struct("<QQQ")
_MAP_RECORD = struct.Struct("<QIHH")
_MAP_LOCATION = struct.Struct("<BBHHHi")
_CALL = struct.Struct("<HI")
_CALL_THROUGH = 0x15FF
"""`call *distance(%rip)`."""
_PLACES = frozenset(int(place) for place in Place)
_GENERAL, _VECTOR = range(16), range(17, 33)
"""Registers that exits save, by their DWARF numbers."""


def _machine(level: int) -> llvm.TargetMachine:
    # AVX-512 has vector registers that exits do not save, and nothing else that guests' code needs.
    return host_machine("pic", level, ",-avx512f")


@cache
def _passes() -> llvm.FunctionPassManager:
    """One manager for all compilations: a new one each time would leak."""
    manager = llvm.create_new_function_pass_manager()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    return manager


@cache
def _keep_loops() -> None:
    """Have loops left as they are, in all of this process.

    LLVM's strength reduction takes registers for new counters without seeing what every way out keeps alive:
    the geometric mean of 45 kernels is 5 % faster without it, the worst loop a third.
    """
    llvm.set_option("", "-disable-lsr")


class _Builders:
    """The pass builder of each optimization level, a new one now and then.

    llvmlite registers callbacks with the builder in each run, which all later runs go through: a run costs a
    quarter of a microsecond more for each before it. It frees neither them nor 1.5 KiB of each builder.
    """

    RUNS = 128
    """Of a builder."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[llvm.PassBuilder, int]] = {}

    def get(self, level: int) -> llvm.PassBuilder:
        """The builder for one run."""
        builder, runs = self._known.get(level, (None, 0))
        if runs % self.RUNS == 0:
            options = llvm.create_pipeline_tuning_options(speed_level=1)
            builder = llvm.create_pass_builder(_machine(level), options)
        self._known[level] = builder, runs + 1
        return builder


_builders = _Builders()


def compile_region(function: RegionFunction, level: int = 1) -> bytes:
    """The image of a region. Raises LinkError for code that needs relocation."""
    _keep_loops()
    # Each region has a context of its own: one for all would keep every number that ever occurred in code.
    context = llvm.create_context()
    module = llvm.parse_assembly(function.text(), context)
    try:
        machine = _machine(level)
        module.triple = llvm.get_default_triple()
        module.data_layout = str(machine.target_data)
        for defined in module.functions:
            if not defined.is_declaration:
                _passes().run(defined, _builders.get(level))
        parsed = read_object(machine.emit_object(module))
        return _Linker(parsed, function.exits, len(function.pages)).image()
    finally:
        module.close()
        context.close()


class _Linker:
    """Makes an image of an object file."""

    def __init__(self, parsed: ObjectFile, exits: list[Exit], pages: int) -> None:
        self._parsed = parsed
        self._exits = exits
        self._page_count = pages
        self._page_table = 0
        self._places: dict[int, int] = {}
        self._content = bytearray(Header.SIZE)

    def image(self) -> bytes:
        """The image."""
        faults: list[tuple[int, int]] = []
        exits: list[tuple[int, int]] = []
        self._lay_out()
        for index, section in enumerate(self._parsed.sections):
            if section.name == FIXUPS:
                faults = self._fault_table(section)
            elif index in self._places:
                self._resolve(index, section)
        for section in self._parsed.sections:
            if section.name == _STACK_MAPS:
                exits = self._exit_table(section.data)
        return self._finish(faults, exits)

    def _lay_out(self) -> None:
        """Code first, then constants."""
        loaded = [
            (section.name != ".text", index, section)
            for index, section in enumerate(self._parsed.sections)
            if section.flags & SectionFlags.ALLOC
            and section.size
            and section.name not in (".eh_frame", _STACK_MAPS)
        ]
        for _, index, section in sorted(loaded, key=lambda item: item[:2]):
            if section.flags & SectionFlags.WRITE:
                raise LinkError(f"a region has writable data in {section.name}")
            self._align(max(section.alignment, 1))
            self._places[index] = len(self._content)
            self._content += section.data
        self._align(8)
        self._page_table = len(self._content)
        self._content += bytes(8 * self._page_count)

    def _align(self, alignment: int) -> None:
        self._content += bytes(-len(self._content) % alignment)

    def _target(self, relocation: Relocation) -> int:
        symbol = self._parsed.symbols[relocation.symbol]
        if relocation.type in _RELATIVE and symbol.name == PAGES:
            return self._page_table + relocation.addend
        if relocation.type not in _RELATIVE or symbol.section not in self._places:
            raise LinkError(f"a region refers to {symbol.name or 'a section'} (type {relocation.type})")
        return self._places[symbol.section] + symbol.value + relocation.addend

    def _resolve(self, index: int, section: Section) -> None:
        """Fill in the distances between code and constants."""
        for relocation in section.relocations:
            place = self._places[index] + relocation.offset
            struct.pack_into("<i", self._content, place, self._target(relocation) - place)

    def _fault_table(self, section: Section) -> list[tuple[int, int]]:
        """Each pair of distances has two relocations, whose targets are what is wanted."""
        targets = {relocation.offset: self._target(relocation) for relocation in section.relocations}
        return [(targets[place], targets[place + 4]) for place in range(0, section.size, PAIR.size)]

    def _exit_table(self, maps: bytes) -> list[tuple[int, int]]:
        """Put calls where LLVM has left room for them, and describe what it says of values there.

        LLVM, "Stack maps and patch points in LLVM", stack map format version 3.
        """
        _, _, _, functions, constants, records = _MAP_HEADER.unpack_from(maps)
        position = _MAP_HEADER.size + functions * _MAP_FUNCTION.size
        self._align(8)
        pool = len(self._content)
        self._content += maps[position : position + 8 * constants]
        position += 8 * constants
        text = self._places[next(i for i, part in enumerate(self._parsed.sections) if part.name == ".text")]
        table = []
        for _ in range(records):
            number, offset, _, count = _MAP_RECORD.unpack_from(maps, position)
            position += _MAP_RECORD.size
            locations = [
                _MAP_LOCATION.unpack_from(maps, position + _MAP_LOCATION.size * index)
                for index in range(count)
            ]
            position += _MAP_LOCATION.size * count
            position += -position % 8
            _, live_outs = struct.unpack_from("<HH", maps, position)
            position += 4 + 4 * live_outs
            position += -position % 8
            place = text + offset
            behind = place + _CALL.size
            _CALL.pack_into(self._content, place, _CALL_THROUGH, Header.EXIT_CODE - behind & 0xFFFFFFFF)
            table.append((behind, self._describe(self._exits[number], locations, pool)))
        return table

    def _describe(self, kind: Exit, locations: list[tuple[int, ...]], pool: int) -> int:
        """Append the description of an exit; returns where it is."""
        self._align(8)
        place = len(self._content)
        self._content += EXIT.pack(kind.reason, len(locations), kind.pc, kind.source, kind.unused)
        for offset, location in zip((0,) * EXIT_VALUES + kind.offsets, locations, strict=True):
            where, _, size, register, _, value = location
            if where == Place.POOL:
                value = pool + 8 * value
            # The size of what is in a vector register is that of the register.
            known = _VECTOR if where == Place.REGISTER and register >= _VECTOR.start else _GENERAL
            if where not in _PLACES or size < 8 or register not in known:
                raise LinkError(f"a value of {size} bytes is in register {register}, kind {where}")
            self._content += VALUE.pack(offset, where, register, value)
        return place

    def _finish(self, faults: list[tuple[int, int]], exits: list[tuple[int, int]]) -> bytes:
        """Append the tables and fill in the header."""
        self._align(8)
        fault_table = len(self._content)
        self._content += b"".join(PAIR.pack(*pair) for pair in sorted(faults))
        exit_table = len(self._content)
        self._content += b"".join(PAIR.pack(*pair) for pair in sorted(exits))
        tables = len(faults), fault_table, len(exits), exit_table, 0, self._page_count, self._page_table
        HEADER.pack_into(self._content, 0, *tables)
        return bytes(self._content)
