"""What LLVM must not do to our code, because it once did."""

import ctypes
import mmap

from anyvirt.jit import blob
from anyvirt.jit.llvm import compile_module

# The load replaces the low 16 bits of a register that also is its address.
INSERTION = """
define dso_local i64 @insert(ptr %place) nounwind {
  %address = load i64, ptr %place
  %pointer = inttoptr i64 %address to ptr
  %loaded = load volatile i16, ptr %pointer, align 1
  %wide = zext i16 %loaded to i64
  %kept = and i64 %address, -65536
  %joined = or i64 %kept, %wide
  store i64 %joined, ptr %place
  ret i64 %joined
}
"""


def test_bits_above_a_narrow_load_are_kept():
    linked = blob.link(compile_module(INSERTION))
    code = mmap.mmap(-1, len(linked.code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(linked.code)
    start = ctypes.addressof(ctypes.c_char.from_buffer(code))
    insert = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(start + linked.symbols["insert"])
    data = ctypes.c_uint16(0x1234)
    place = ctypes.c_uint64(ctypes.addressof(data))
    expected = place.value & ~0xFFFF | 0x1234
    assert insert(ctypes.addressof(place)) == expected
