"""Loads and stores by address: the memory of whatever the compiled code runs in.

Under CPython that is the memory of this very process, so an address must be one that the process has
(from a ctypes buffer, mmap, ...); a wrong one crashes it, as it does any native program.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from anyvirt.typed.floats import f32, f64
from anyvirt.typed.integers import u8, u16, u32, u64

if TYPE_CHECKING:
    from anyvirt.typed.integers import FixedInteger


def load8(address: u64) -> u8:
    """The byte at `address`."""
    return u8(ctypes.c_uint8.from_address(int(address)).value)


def load16(address: u64) -> u16:
    """The 16 bits at `address`, in the byte order of the machine; it need not be aligned."""
    return u16(ctypes.c_uint16.from_address(int(address)).value)


def load32(address: u64) -> u32:
    """The 32 bits at `address`."""
    return u32(ctypes.c_uint32.from_address(int(address)).value)


def load64(address: u64) -> u64:
    """The 64 bits at `address`."""
    return u64(ctypes.c_uint64.from_address(int(address)).value)


def loadf32(address: u64) -> f32:
    """The single-precision float at `address`."""
    return f32(ctypes.c_float.from_address(int(address)).value)


def loadf64(address: u64) -> f64:
    """The double-precision float at `address`."""
    return f64(ctypes.c_double.from_address(int(address)).value)


def store8(address: u64, value: FixedInteger) -> None:
    """Store the low byte of `value`."""
    ctypes.c_uint8.from_address(int(address)).value = int(value)


def store16(address: u64, value: FixedInteger) -> None:
    """Store the low 16 bits of `value`."""
    ctypes.c_uint16.from_address(int(address)).value = int(value)


def store32(address: u64, value: FixedInteger) -> None:
    """Store the low 32 bits of `value`."""
    ctypes.c_uint32.from_address(int(address)).value = int(value)


def store64(address: u64, value: FixedInteger) -> None:
    """Store the low 64 bits of `value`."""
    ctypes.c_uint64.from_address(int(address)).value = int(value)


def storef32(address: u64, value: f32) -> None:
    """Store a single-precision float."""
    ctypes.c_float.from_address(int(address)).value = float(value)


def storef64(address: u64, value: f64) -> None:
    """Store a double-precision float."""
    ctypes.c_double.from_address(int(address)).value = float(value)
