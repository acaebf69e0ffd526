"""From the LLVM function of a region to an image: code that runs wherever it is placed, with its fault table.

An image begins with a header of 16 bytes (`HEADER`), the code follows. The fault table at its end pairs each
memory access with the place to continue at if it faults; both are distances from the image's beginning.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING

import llvmlite.binding as llvm

from anyvirt.jit.object_file import LinkError, SectionFlags, read_object
from anyvirt.jit.region_flat import FIXUPS

if TYPE_CHECKING:
    from anyvirt.jit.object_file import Section, Symbol

HEADER = struct.Struct("<IIQ")
"""Number of entries of the fault table, its distance from the beginning, and nothing."""
ENTRY = HEADER.size
"""Distance of the region's first instruction from the beginning."""
_PAIR = struct.Struct("<II")
_RELATIVE = (2, 4)
"""R_X86_64_PC32 and R_X86_64_PLT32."""


@cache
def _machine(level: int) -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=level,
        reloc="pic",
        codemodel="small",
    )


@cache
def _passes() -> llvm.FunctionPassManager:
    """One manager for all compilations: a new one each time would leak."""
    manager = llvm.create_new_function_pass_manager()
    manager.add_sroa_pass()
    manager.add_instruction_combine_pass()
    manager.add_simplify_cfg_pass()
    return manager


@cache
def _builder(level: int) -> llvm.PassBuilder:
    return llvm.create_pass_builder(_machine(level), llvm.create_pipeline_tuning_options(speed_level=1))


def compile_region(text: str, level: int = 1) -> bytes:
    """The image of a module with one function, `region`. Raises LinkError for code that needs relocation."""
    module = llvm.parse_assembly(text)
    try:
        machine = _machine(level)
        module.triple = llvm.get_default_triple()
        module.data_layout = str(machine.target_data)
        for function in module.functions:
            if not function.is_declaration:
                _passes().run(function, _builder(level))
        return _image(machine.emit_object(module))
    finally:
        module.close()


def _image(object_file: bytes) -> bytes:
    parsed = read_object(object_file)
    content = bytearray(ENTRY)
    places: dict[int, int] = {}
    ordered = sorted(
        (
            (section.name != ".text", index, section)
            for index, section in enumerate(parsed.sections)
            if section.flags & SectionFlags.ALLOC and section.size and section.name != ".eh_frame"
        ),
        key=lambda item: item[:2],
    )
    for _, index, section in ordered:
        if section.flags & SectionFlags.WRITE:
            raise LinkError(f"a region has writable data in {section.name}")
        content += bytes(-len(content) % max(section.alignment, 1))
        places[index] = len(content)
        content += section.data
    faults: list[tuple[int, int]] = []
    for index, section in enumerate(parsed.sections):
        if section.name == FIXUPS:
            faults = _fault_table(section, places, parsed.symbols)
        elif index in places:
            _resolve(content, places, index, section, parsed.symbols)
    content += bytes(-len(content) % 8)
    HEADER.pack_into(content, 0, len(faults), len(content), 0)
    return bytes(content) + b"".join(_PAIR.pack(*pair) for pair in sorted(faults))


def _resolve(
    content: bytearray, places: dict[int, int], index: int, section: Section, symbols: tuple[Symbol, ...]
) -> None:
    """Fill in the distances between code and constants."""
    for relocation in section.relocations:
        symbol = symbols[relocation.symbol]
        if relocation.type not in _RELATIVE or symbol.section not in places:
            raise LinkError(f"a region refers to {symbol.name or 'a section'} (type {relocation.type})")
        place = places[index] + relocation.offset
        distance = places[symbol.section] + symbol.value + relocation.addend - place
        struct.pack_into("<i", content, place, distance)


def _fault_table(
    section: Section, places: dict[int, int], symbols: tuple[Symbol, ...]
) -> list[tuple[int, int]]:
    """Each pair of distances has two relocations, whose targets are what is wanted."""
    targets: dict[int, int] = {}
    for relocation in section.relocations:
        symbol = symbols[relocation.symbol]
        if relocation.type not in _RELATIVE or symbol.section not in places:
            raise LinkError(f"a fault table refers to {symbol.name or 'a section'}")
        targets[relocation.offset] = places[symbol.section] + symbol.value + relocation.addend
    return [(targets[position], targets[position + 4]) for position in range(0, section.size, _PAIR.size)]
