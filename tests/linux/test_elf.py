"""ELF headers: real executables are understood, damaged ones refused without a traceback."""

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyvirt.isa.names import Isa
from anyvirt.linux.elf import ElfError, ElfType, SegmentType, machine_number, parse_elf

HOST = Path("/bin/sh").read_bytes()


def test_the_host_s_shell_is_a_dynamic_program_of_the_host_s_isa():
    elf = parse_elf(HOST[:4096], len(HOST))
    assert elf.isa is Isa.host()
    start = elf.interpreter.offset
    assert HOST[start : start + 5] == b"/lib/" or HOST[start : start + 6] == b"/lib64"


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf (package binutils)")
def test_segments_agree_with_readelf():
    text = subprocess.run(["readelf", "-lW", "/bin/sh"], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in text.splitlines() if line.strip().startswith("LOAD")]
    elf = parse_elf(HOST)
    loads = [segment for segment in elf.segments if segment.type == SegmentType.LOAD]
    assert [(s.offset, s.address, s.file_size, s.memory_size) for s in loads] == [
        (int(f[1], 16), int(f[2], 16), int(f[4], 16), int(f[5], 16)) for f in lines
    ]


def elf_header(*, bits=64, order="<", machine=243, kind=2, count=1, load=(0, 0x1000, 64, 64)):
    """A minimal executable: a header and `count` copies of one PT_LOAD."""
    size = 64 if bits == 64 else 52
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    offset, address, file_size, memory_size = load
    if bits == 64:
        entry = struct.pack(order + "IIQQQQQQ", 1, 5, offset, address, address, file_size, memory_size, 4096)
        rest = struct.pack(
            order + "HHIQQQIHHHHHH", kind, machine, 1, address, size, 0, 0, size, 56, count, 0, 0, 0
        )
    else:
        entry = struct.pack(order + "8I", 1, offset, address, address, file_size, memory_size, 5, 4096)
        rest = struct.pack(
            order + "HHIIIIIHHHHHH", kind, machine, 1, address, size, 0, 0, size, 32, count, 0, 0, 0
        )
    return ident + rest + entry * count


@pytest.mark.parametrize(
    ("bits", "order", "machine", "isa"),
    [
        (64, "<", 62, Isa.X86_64),
        (64, "<", 243, Isa.RISCV64),
        (32, "<", 243, Isa.RISCV32),
        (32, ">", 8, Isa.MIPS),
        (32, "<", 8, Isa.MIPSEL),
        (64, ">", 43, Isa.SPARC64),
        (64, "<", 21, Isa.PPC64LE),
        (64, "<", 0x9026, Isa.ALPHA),
    ],
)
def test_isas_of_both_sizes_and_byte_orders_are_told_apart(bits, order, machine, isa):
    elf = parse_elf(elf_header(bits=bits, order=order, machine=machine))
    assert (elf.isa, elf.bits, elf.little_endian, elf.type) == (isa, bits, order == "<", ElfType.EXEC)
    assert machine_number(isa) == machine


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an ELF"),
        (b"#!/bin/sh\n", "not an ELF"),
        (HOST[:30], "header is incomplete"),
        (HOST[:60], "header is incomplete"),
        (HOST[:80], "lies beyond its end"),
        (HOST[:4096], "segment lies beyond its end"),
        (HOST[:4] + b"\x07" + HOST[5:], "class, byte order"),
        (elf_header(machine=999), "does not know"),
        (elf_header(kind=1), "not an executable"),
        (elf_header(count=200), "impossible size"),
        (elf_header(load=(0, 0x1000, 64, 32)), "does not fit"),
        (elf_header(load=(0, (1 << 64) - 10, 64, 64)), "does not fit"),
        (elf_header(load=(1 << 63, 0x1000, 64, 64)), "beyond its end"),
    ],
)
def test_what_no_kernel_would_execute_is_refused_with_the_reason(data, message):
    with pytest.raises(ElfError, match=message):
        parse_elf(data)


@given(st.binary(max_size=200), st.integers(0, 119))
@example(b"\xff" * 64, 0)
def test_damaged_headers_never_raise_anything_else(noise, position):
    good = elf_header()
    damaged = good[:position] + noise + good[position + len(noise) :]
    try:
        elf = parse_elf(damaged)
    except ElfError:
        return
    assert all(
        segment.offset + segment.file_size <= len(damaged) for segment in elf.segments if segment.type == 1
    )


def test_python_itself_is_a_program():
    with open(os.path.realpath(sys.executable), "rb") as file:
        assert parse_elf(file.read()).isa is Isa.host()
