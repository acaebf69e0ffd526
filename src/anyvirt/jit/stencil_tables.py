"""From the object file of an instruction set's stencils to the tables that the translator works with."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from anyvirt.jit.object_file import LinkError, read_object
from anyvirt.jit.stencil import SECTION, parse_hole
from anyvirt.jit.stencil_flat import ACCESSES
from anyvirt.jit.stencil_layout import (
    AT_INTERPRETER,
    HEADER,
    HEADER_SIZE,
    JUMPS,
    LARGEST_STENCIL,
    LITERAL_SIZE,
    MOST_ACCESSES,
    MOST_JUMPS,
    PATCH,
    PATCH_SIZE,
    Glue,
    Hole,
    Shape,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.jit.object_file import ObjectFile, Relocation, Section
    from anyvirt.jit.stencil import StencilCompiler

_JUMP, _JUMP_SIZE = 0xE9, 5
_CONDITIONAL_SIZE = 6
_CONSTANTS = ".rodata.cst"
"""What the names of sections with constants begin with; the size of each follows."""
_WIDTHS = {1: 8, 10: 4, 11: 4, 14: 1}
"""R_X86_64_64, _32, _32S and _8: bytes that they fill."""
_RELATIVE = (2, 4)
"""R_X86_64_PC32 and R_X86_64_PLT32."""


class _OutsideError(Exception):
    """Code that refers to something that is not copied with it, such as a table."""


@dataclass(frozen=True)
class _Patch:
    offset: int
    hole: Hole
    width: int = 4
    operand: int = 0
    addend: int = 0
    literal: bytes = b""


@dataclass
class _Stencil:
    """The code of one form, and what has to be done to a copy of it."""

    code: bytes
    fall: int
    patches: list[_Patch] = field(default_factory=list)


def build_tables(
    object_file: bytes, lengths: Sequence[int], forms: Sequence[StencilCompiler | None]
) -> bytes:
    """Headers of the glue and of all forms in order, then patches, code and constants. Raises LinkError."""
    parsed = read_object(object_file)
    stencils = _read_stencils(parsed)
    if stencils[Glue.COUNT].fall == len(stencils[Glue.COUNT].code):
        raise LinkError("what counts a block does not go on behind itself")
    headers, patches, code = bytearray(), bytearray(), bytearray()
    literals: dict[bytes, int] = {}
    patch_base = HEADER_SIZE * (len(Glue) + len(forms))
    code_base = patch_base + PATCH_SIZE * sum(
        len(stencil.patches) for stencil in stencils.values() if _fits(stencil)
    )
    literal_base = code_base + sum(
        _padded(len(stencil.code)) for stencil in stencils.values() if _fits(stencil)
    )
    literal_base += -literal_base % LITERAL_SIZE
    for number in range(len(Glue) + len(forms)):
        stencil = stencils.get(number)
        form = forms[number - len(Glue)] if number >= len(Glue) else None
        length = lengths[number - len(Glue)] if number >= len(Glue) else 0
        if stencil is None or not _fits(stencil):
            shape = Shape.INTERPRETED | Shape.NEXT
            headers += HEADER.pack(0, 0, 0, 0, 0, shape, length, 0, 0, 0)
            continue
        headers += HEADER.pack(
            code_base + len(code),
            patch_base + len(patches),
            len(stencil.code),
            stencil.fall,
            len(stencil.patches),
            form.finished_shape() if form else Shape.NEXT,
            length,
            form.target_operand if form else 0,
            form.link_operand if form else 0,
            form.sink if form else 0,
        )
        for patch in stencil.patches:
            place = 0
            if patch.literal:
                place = literals.setdefault(patch.literal, literal_base + LITERAL_SIZE * len(literals))
            addend = patch.addend if patch.addend < 1 << 31 else patch.addend - (1 << 32)
            patches += PATCH.pack(patch.offset, patch.hole, patch.width, patch.operand, addend, place)
        code += stencil.code + bytes(_padded(len(stencil.code)) - len(stencil.code))
    tables = bytes(headers + patches + code)
    return tables + bytes(-len(tables) % LITERAL_SIZE) + b"".join(literals)


def _fits(stencil: _Stencil) -> bool:
    """Whether the translator's limits allow for a stencil; the interpreter executes other forms."""
    holes = [patch.hole for patch in stencil.patches]
    return (
        len(stencil.code) <= LARGEST_STENCIL
        and sum(hole in JUMPS or hole == Hole.LITERAL for hole in holes) <= MOST_JUMPS
        and holes.count(Hole.ACCESS) <= MOST_ACCESSES
    )


def _padded(size: int) -> int:
    """The translator copies eight bytes at a time."""
    return -(-size // 8) * 8


def _read_stencils(parsed: ObjectFile) -> dict[int, _Stencil]:
    """Those that need nothing but what can be copied with them."""
    sections = {
        index: int(section.name.removeprefix(SECTION))
        for index, section in enumerate(parsed.sections)
        if section.name.startswith(SECTION)
    }
    accesses: dict[int, list[_Patch]] = {}
    for section in parsed.sections:
        if section.name == ACCESSES:
            _read_accesses(parsed, section, accesses)
    stencils = {}
    for index, number in sections.items():
        with contextlib.suppress(_OutsideError):
            stencils[number] = _read_stencil(parsed, parsed.sections[index], accesses.get(index, []))
    return stencils


def _read_accesses(parsed: ObjectFile, section: Section, accesses: dict[int, list[_Patch]]) -> None:
    """Each pair of distances has two relocations, whose targets are what is wanted."""
    targets: dict[int, tuple[int, int]] = {}
    for relocation in section.relocations:
        symbol = parsed.symbols[relocation.symbol]
        targets[relocation.offset] = symbol.section, symbol.value + relocation.addend
    for position in range(0, section.size, 8):
        (owner, access), (other, landing) = targets[position], targets[position + 4]
        if owner != other:
            raise LinkError("an access to memory goes on in another stencil")
        accesses.setdefault(owner, []).append(_Patch(access, Hole.ACCESS, addend=landing))


def _read_stencil(parsed: ObjectFile, section: Section, accesses: list[_Patch]) -> _Stencil:
    patches = [_read_patch(parsed, section, relocation) for relocation in section.relocations]
    patches = sorted([*patches, *accesses], key=lambda patch: patch.offset)
    code, patches = _next_last(*_without_landing(section.data, patches))
    fall = len(code)
    if patches and _is_jump(code, patches[-1], Hole.NEXT):
        fall -= _JUMP_SIZE
    return _Stencil(code, fall, patches)


def _is_jump(code: bytes, patch: _Patch, hole: Hole) -> bool:
    """Whether a patch is the distance of a jump that ends the code."""
    return (
        patch.hole == hole
        and patch.offset + 4 == len(code)
        and len(code) >= _JUMP_SIZE
        and code[-_JUMP_SIZE] == _JUMP
    )


def _without_landing(code: bytes, patches: list[_Patch]) -> tuple[bytes, list[_Patch]]:
    """Accesses that fault go straight to the interpreter's part if all there is for them is a jump to it.

    Nothing else leads to that jump, so it need not be copied; what is before it can then fall through.
    """
    if not patches or not _is_jump(code, patches[-1], Hole.FAULT):
        return code, patches
    end = len(code) - _JUMP_SIZE
    landings = {patch.addend for patch in patches if patch.hole == Hole.ACCESS}
    if landings != {end}:
        return code, patches
    return code[:end], [
        _Patch(patch.offset, Hole.ACCESS, addend=AT_INTERPRETER) if patch.hole == Hole.ACCESS else patch
        for patch in patches[:-1]
    ]


def _next_last(code: bytes, patches: list[_Patch]) -> tuple[bytes, list[_Patch]]:
    """Turn `jCC NEXT; jmp ELSEWHERE` at the end around: the jump to the next instruction can be left out."""
    start = len(code) - _CONDITIONAL_SIZE - _JUMP_SIZE
    if len(patches) < 2 or start < 0 or code[start] != 0x0F or code[start + 1] & 0xF0 != 0x80:
        return code, patches
    first, second = patches[-2:]
    onward = first.hole == Hole.NEXT and first.offset == start + 2
    if not onward or not _is_jump(code, second, second.hole) or second.hole not in JUMPS:
        return code, patches
    if start + _CONDITIONAL_SIZE in _possible_targets(code, {patch.offset for patch in patches}):
        return code, patches
    inverted = code[: start + 1] + bytes([code[start + 1] ^ 1]) + code[start + 2 :]
    swapped = [replace(second, offset=first.offset), replace(first, offset=second.offset)]
    return inverted, patches[:-2] + swapped


def _possible_targets(code: bytes, patched: set[int]) -> set[int]:
    """Where jumps within the code lead, and more: any bytes that could be a jump are taken for one.

    Jumps whose distance is patched lead out of it.
    """
    targets = set()
    for place, byte in enumerate(code):
        if place + 1 in patched:
            continue
        if byte & 0xF0 == 0x70 or byte in (0xEB, 0xE3):
            targets.add(place + 2 + int.from_bytes(code[place + 1 : place + 2], "little", signed=True))
        if byte == _JUMP or byte & 0xF0 == 0x80:
            targets.add(place + 5 + int.from_bytes(code[place + 1 : place + 5], "little", signed=True))
    return targets


def _read_patch(parsed: ObjectFile, section: Section, relocation: Relocation) -> _Patch:
    symbol = parsed.symbols[relocation.symbol]
    hole = parse_hole(symbol.name)
    if hole is None:
        return _read_literal(parsed, section, relocation)
    if relocation.type in _RELATIVE and hole[0] in JUMPS and relocation.addend == -4:
        return _Patch(relocation.offset, hole[0], addend=-4)
    if relocation.type in _WIDTHS and hole[0] not in JUMPS:
        width = _WIDTHS[relocation.type]
        return _Patch(relocation.offset, hole[0], width, hole[1], relocation.addend)
    raise LinkError(f"{section.name} refers to {symbol.name} by relocation type {relocation.type}")


def _read_literal(parsed: ObjectFile, section: Section, relocation: Relocation) -> _Patch:
    """A constant that LLVM put into a section for such."""
    symbol = parsed.symbols[relocation.symbol]
    data = parsed.sections[symbol.section] if symbol.section < len(parsed.sections) else None
    if data is None or not data.name.startswith(_CONSTANTS) or relocation.type not in _RELATIVE:
        raise _OutsideError(f"{section.name} refers to {symbol.name} by relocation type {relocation.type}")
    size = int(data.name.removeprefix(_CONSTANTS))
    if size > LITERAL_SIZE:
        raise _OutsideError(f"{section.name} refers to a constant of {size} bytes")
    # An immediate behind the distance makes the addend less than -4.
    place = symbol.value + relocation.addend + 4
    start = -(-place // size) * size
    literal = data.data[start : start + size].ljust(LITERAL_SIZE, b"\0")
    return _Patch(relocation.offset, Hole.LITERAL, addend=place - start - 4, literal=literal)
