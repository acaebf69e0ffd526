"""What the semantics of an instruction may do: the processor as an instruction sees it.

An instruction's function gets one of these as its first parameter. Under CPython it is an object of the
reference executor; in compiled tiers each use becomes machine code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol, TypeAlias

from anyvirt.typed import u8, u16, u32, u64

if TYPE_CHECKING:
    from anyvirt.typed import FixedInteger

Register: TypeAlias = u8
"""An operand that is a register number."""
Small: TypeAlias = u8
"""An operand of at most eight bits that is no register: a shift amount, a rounding mode."""
Immediate: TypeAlias = u64
"""An operand of up to 32 bits, sign- or zero-extended as its field was declared."""


def four_bytes(parcel: u16) -> u8:
    """The length function of an instruction set whose instructions all have four bytes."""
    return u8(4)


class Registers(Protocol):
    """A register file; narrower registers than 64 bits are extended as declared, and cut when written."""

    def __getitem__(self, number: u8 | int, /) -> u64: ...
    def __setitem__(self, number: u8 | int, value: u64, /) -> None: ...


class Processor(Protocol):
    """Operations every instruction set has. Addresses are u64.

    An access that is not allowed ends the instruction: nothing after it happens. So do `jump`, `branch` and
    the stops, which therefore stand last on their path; registers are written before them.
    """

    @property
    def pc(self) -> u64:
        """Address of this instruction."""

    @property
    def next_pc(self) -> u64:
        """Address of the instruction after this one."""

    def jump(self, target: u64, /) -> None:
        """Continue at an address."""

    def branch(self, offset: u64, /) -> None:
        """Continue at `pc + offset`, where the offset is an operand, so known when decoding."""

    def delayed_branch(self, offset: u64, /) -> None:
        """Execute the next instruction, the delay slot, and then continue at `pc + offset`, an operand."""

    def delayed_jump(self, target: u64, /) -> None:
        """Execute the next instruction, the delay slot, and then continue at an address."""

    def annul(self) -> None:
        """Leave the next instruction out."""

    @property
    def big_endian(self) -> bool:
        """Whether the byte order is big-endian; known when compiling."""

    def trap(self, number: int | u64, /) -> NoReturn:
        """An exception of this instruction set by its own number: overflow, a trap instruction."""

    def system_call(self) -> NoReturn:
        """Hand over to the environment; this instruction counts as executed."""

    def breakpoint(self) -> NoReturn:
        """Hand over to a debugger."""

    def illegal(self) -> NoReturn:
        """This instruction does not exist, or not now."""

    def load8(self, address: u64, /) -> u8:
        """A byte of guest memory."""

    def load16(self, address: u64, /) -> u16:
        """16 bits in the byte order of the instruction set; need not be aligned."""

    def load32(self, address: u64, /) -> u32:
        """32 bits."""

    def load64(self, address: u64, /) -> u64:
        """64 bits."""

    def store8(self, address: u64, value: FixedInteger, /) -> None:
        """Store the low byte of `value`."""

    def store16(self, address: u64, value: FixedInteger, /) -> None:
        """Store the low 16 bits."""

    def store32(self, address: u64, value: FixedInteger, /) -> None:
        """Store the low 32 bits."""

    def store64(self, address: u64, value: FixedInteger, /) -> None:
        """Store the low 64 bits."""

    def require_aligned(self, address: u64, size: int, /) -> None:
        """Stop as misaligned unless `address` is a multiple of `size`."""

    def exchange(self, operation: str, address: u64, value: u32 | u64, /) -> u64:
        """Atomically combine memory with `value`; the old content, zero-extended, comes back.

        Operations: `swap add and or xor min max minu maxu`; the type of `value` gives the width.
        """

    def compare_exchange(self, address: u64, expected: FixedInteger, value: FixedInteger, /) -> bool:
        """Atomically store `value` if memory holds `expected`; says whether it did.

        Both are of one type, `u8 u16 u32` or `u64`, which gives the width.
        """

    def fence(self) -> None:
        """Order all memory accesses before this against all after it, as seen by others."""

    def synchronize_code(self) -> None:
        """What was stored is what is executed from the next instruction on; stands last."""

    def cycle_counter(self) -> u64:
        """A counter that grows with the host's clock cycles, or with instructions in counting runs."""

    def time_counter(self) -> u64:
        """Time since some start in units of 100 ns; in counting runs an instruction takes 1 ns."""

    # Floating point. Every operation raises its exceptions in `float_flags`. Numbers travel as encodings;
    # 32-bit ones in the low half of a u64 that is otherwise 0.
    # `width` is the constant 32 or 64. A rounding mode is a value of `anyvirt.isa.ieee754.Rounding`.

    float_flags: u8
    """Accrued exceptions, bits as in `anyvirt.isa.ieee754.Flag`."""
    float_rounding: u8
    """The dynamic rounding mode: compiled code is fastest for operations that use it."""

    def raise_float_flags(self, flags: u8, /) -> None:
        """Add exceptions to the accrued ones."""

    def float_add(self, width: int, a: u64, b: u64, rounding: u8, /) -> u64:
        """`a + b`; a NaN result is the canonical one."""

    def float_subtract(self, width: int, a: u64, b: u64, rounding: u8, /) -> u64:
        """`a - b`."""

    def float_multiply(self, width: int, a: u64, b: u64, rounding: u8, /) -> u64:
        """`a * b`."""

    def float_divide(self, width: int, a: u64, b: u64, rounding: u8, /) -> u64:
        """`a / b`."""

    def float_sqrt(self, width: int, a: u64, rounding: u8, /) -> u64:
        """The square root of `a`."""

    def float_fma(self, width: int, a: u64, b: u64, c: u64, rounding: u8, /) -> u64:
        """`a * b + c`, rounded once."""

    def float_compare(self, comparison: str, width: int, a: u64, b: u64, /) -> bool:
        """`==` (quiet) or `<`, `<=` (which signal invalid for any NaN); false for NaNs."""

    def float_convert(self, width: int, target: int, a: u64, rounding: u8, /) -> u64:
        """From one width to the other."""

    def float_to_integer(self, width: int, target: str, a: u64, rounding: u8, /) -> u64:
        """To `s32 u32 s64 u64`, saturating (a NaN gives the greatest); 32-bit results are sign-extended."""

    def float_from_integer(self, width: int, source: str, a: u64, rounding: u8, /) -> u64:
        """From `s32 u32 s64 u64`, of which the low bits of `a` are taken."""
