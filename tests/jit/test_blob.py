"""Linking blobs: code that runs wherever it is put."""

import ctypes
import mmap

import pytest

from anyvirt.cpu.host import MappedBlob
from anyvirt.jit.blob import link
from anyvirt.jit.frontend import Module
from anyvirt.jit.object_file import LinkError
from anyvirt.jit.target import Target
from anyvirt.typed import f64, u64

llvm = pytest.importorskip("anyvirt.jit.llvm")
TABLE = tuple(u64(number * number) for number in range(40))


def square(n: u64) -> u64:
    return TABLE[n] + five_quarters(n)


def five_quarters(n: u64) -> u64:
    return u64(f64(n) * 1.25)


def compile_blob(extra=""):
    module = Module(Target())
    module.add(five_quarters, attributes="noinline")
    module.add(square, name="square", linkage="dso_local ")
    return link(llvm.compile_module(module.text() + extra), {"note": 1})


def test_constants_and_calls_are_found_wherever_the_blob_is():
    blob = compile_blob()
    assert blob.notes == {"note": 1}
    for _ in range(2):
        mapped = MappedBlob(blob)
        call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)(mapped["square"])
        assert [call(n) for n in (0, 5, 39)] == [0, 25 + 6, 39 * 39 + 48]


def test_data_is_zero_writable_and_apart_from_code():
    blob = compile_blob("\n@data = dso_local global [600 x i64] zeroinitializer, align 64\n")
    mapped = MappedBlob(blob)
    assert blob.data_size == 4800
    assert mapped["data"] % mmap.PAGESIZE == 0
    words = (ctypes.c_uint64 * 600).from_address(mapped["data"])
    assert not any(words)
    words[599] = 1
    permissions = {}
    with open("/proc/self/maps") as file:
        for line in file:
            span, rights = line.split()[:2]
            start, end = (int(text, 16) for text in span.split("-"))
            for address in (mapped["square"], mapped["data"]):
                if start <= address < end:
                    permissions[address] = rights
    assert permissions == {mapped["square"]: "r-xp", mapped["data"]: "rw-p"}


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("declare void @outside()\ndefine void @f() {\n call void @outside()\n ret void\n}", "outside"),
        ("@initialized = global i64 5\n", "start values"),
        ("@pointer = constant ptr @square\n", "start values|outside"),
    ],
)
def test_what_would_need_relocation_is_refused(extra, reason):
    with pytest.raises(LinkError, match=reason):
        compile_blob("\n" + extra)
