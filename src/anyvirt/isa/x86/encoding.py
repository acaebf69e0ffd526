"""Encodings as the manual's opcode maps write them: `@encoding("01 /r", "add", to="Ev", source="Gv")`.

Behind the opcode stands `/r` if ModRM has a register in the middle, `/0` to `/7` if the opcode goes on there,
`/-` if these bits are ignored, or `+r` if the opcode's last bits are a register.

An operand is a letter for where it is and one for its size (SDM Volume 2, appendix A.2), or the name of a
register or field. Places: E a register or memory in ModRM, M only memory, N only a register in ModRM, G the
register in ModRM's middle, Z the register in the opcode (`+r`), I an immediate, U an unsigned one, O memory
at an address behind the opcode, J a distance to jump. Sizes: b, w, d, q; v is the operand size (16, 32 or
64), z the same but at most 32, y 32 or 64. Each combination becomes patterns of its own.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import anyvirt.isa.x86.addressing  # noqa: F401 - the forms that patterns here name
from anyvirt.isa.x86.machine import NAMES, NONE, x86
from anyvirt.isa.x86.operands import Byte, Count, General

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["encoding"]

Function = TypeVar("Function", bound="Callable[..., None]")

_SIZES = {"b": 8, "w": 16, "d": 32, "q": 64}
_POINTERS = {8: "byte ptr ", 16: "word ptr ", 32: "dword ptr ", 64: "qword ptr "}

_COUNTS = {"CL": {"number": 1, "value": 0}, "1": {"number": NONE, "value": 1}}
_NAMED = {"AL": (8, 0), "rAX": (0, 0)}
"""Registers that opcodes imply: bits (0: as many as the operand size) and number."""
_AS_WIDE = {name for name, (bits, _) in _NAMED.items() if not bits}


@dataclass
class _Encoding:
    """What is put together to one pattern."""

    opcode: str
    bits: str = ""
    tail: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    objects: dict[str, type] = field(default_factory=dict)
    fixed: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def encoding(
    opcode: str,
    mnemonic: str,
    *,
    measure: str = "operand",
    sizes: tuple[int, ...] = (16, 32, 64),
    form: str = "M",
    lock: bool = False,
    pointer: bool = True,
    hidden: tuple[str, ...] = (),
    when: Mapping[str, int] | None = None,
    constants: Mapping[str, int] | None = None,
    fixed: Mapping[str, int] | None = None,
    **operands: str,
) -> Callable[[Function], Function]:
    """Declare an encoding of the function that follows.

    The function gets an object for each operand, and if it asks for them the constants `size` (of the first
    operand), NAME_size (of another) and `width` (of the stack pointer). `measure` names the field of the
    context that sizes v and z follow, `sizes` those that exist. `form` "A" makes no special handlers of
    frequent addressing modes. With `lock` it is the instruction with that prefix.
    """

    def register(semantics: Function) -> Function:
        wanted = set(inspect.signature(semantics).parameters)
        variable = measure != "operand" or any(
            operand in _AS_WIDE or operand[-1] in "vzy" for operand in operands.values()
        )
        for size, width in _settings(sizes if variable else (0,), measure, stack="width" in wanted):
            conditions = {measure: size} if variable else {}
            if width:
                conditions |= {"pointer": width, "long": int(width == 64)}
            for found in _expand(opcode, operands, size, "A" if lock else form, pointer):
                given = {f"{role}_size": value for role, value in found.sizes.items()}
                given["size"] = size if measure != "operand" else found.sizes.get(next(iter(operands), ""), 0)
                given |= {"width": width, **(constants or {})}
                text = ", ".join(found.texts[role] for role in operands if role not in hidden)
                x86.instruction(
                    f"{found.bits} {found.tail}".strip(),
                    f"{'lock ' if lock else ''}{mnemonic} {text}".strip(),
                    fixed={**found.fixed, **(fixed or {})},
                    when={**conditions, "lock": int(lock), **(when or {})},
                    constants={name: value for name, value in given.items() if name in wanted},
                    objects=found.objects,
                )(semantics)
        return semantics

    return register


def _settings(sizes: tuple[int, ...], measure: str, *, stack: bool) -> Iterator[tuple[int, int]]:
    """Operand size and, for instructions that use the stack, size of the stack pointer (otherwise 0)."""
    for size in sizes:
        if not stack:
            yield size, 0
            continue
        for width in (16, 32, 64):
            # In 64-bit mode nothing of 32 bits is pushed, in other modes nothing of 64.
            either = size == 16 and measure == "stack"
            if either or (size == 64) == (width == 64):
                yield size, width


def _expand(
    opcode: str, operands: Mapping[str, str], size: int, form: str, pointer: bool
) -> Iterator[_Encoding]:
    """The patterns of an encoding with one operand size: E is a register in one and memory in another."""
    if not any(operand[0] == "E" for operand in operands.values()):
        yield _combine(opcode, operands, size, form, pointer)
        return
    for letter in "NM":
        chosen = {
            role: letter + operand[1:] if operand[0] == "E" else operand for role, operand in operands.items()
        }
        yield _combine(opcode, chosen, size, form, pointer)


def _combine(opcode: str, operands: Mapping[str, str], size: int, form: str, pointer: bool) -> _Encoding:
    code, _, modifier = opcode.partition(" /")
    code, plus, _ = code.partition(" +r")
    made = _Encoding(code)
    opcode_bits = [f"{int(byte, 16):08b}" for byte in code.split()]
    middle = f"{int(modifier):03b}" if modifier.isdigit() else "---" if modifier == "-" else ""
    for role, operand in operands.items():
        if operand[0] == "G" and len(operand) == 2:
            bits = _size_of(operand, size)
            middle = f"{role}:G{bits}"
    last = ""
    for role, operand in operands.items():
        bits = _size_of(operand, size)
        made.texts[role], made.sizes[role] = f"{{{role}}}", bits
        match operand[0] if len(operand) == 2 and operand[1] in "bwdqvzy" else "":
            case "G":
                continue
            case "N":
                last = f"11 {middle} {role}:R{bits}"
            case "M":
                last = f"{role}:{form}({middle})"
                made.texts[role] = f"{_POINTERS[bits] if pointer else ''}{{{role}}}"
            case "Z":
                assert plus
                opcode_bits[-1] = f"{opcode_bits[-1][:5]} {role}:R{bits}"
            case "O":
                last = f"{role}:O({opcode_bits.pop()})"
                made.texts[role] = f"{_POINTERS[bits]}{{{role}}}"
            case "I":
                made.tail += f" {role}:I{bits}_{max(size, bits)}"
            case "U":
                made.tail += f" {role}:I{bits}_{bits}"
            case "":
                _other(made, role, operand, size)
            case "J":
                made.tail += f" distance{bits}"
                made.texts[role] = "{pc+offset}"
    made.bits = f"{' '.join(opcode_bits)} {last}".strip()
    return made


def _size_of(operand: str, size: int) -> int:
    """The bits of an operand, where v is `size`."""
    return _SIZES.get(operand[-1], min(size, 32) if operand[-1] == "z" else size)


def _other(made: _Encoding, role: str, operand: str, size: int) -> None:
    """A field by its own name, or what the opcode implies."""
    if operand in x86.fields:
        made.tail += f" {role}:{operand}"
    else:
        _name_register(made, role, operand, size)


def _name_register(made: _Encoding, role: str, operand: str, size: int) -> None:
    """A register that the opcode implies; CL and the number 1 are counts."""
    if operand in _COUNTS:
        made.objects[role], made.texts[role] = Count, operand.lower()
        made.fixed |= {f"{role}_{name}": value for name, value in _COUNTS[operand].items()}
        return
    bits, number = _NAMED[operand]
    bits = bits or size
    made.objects[role], made.fixed[f"{role}_number"] = (Byte if bits == 8 else General), number
    if bits == 8:
        made.fixed[f"{role}_shift"] = 0
    made.texts[role], made.sizes[role] = NAMES[bits][number], bits
