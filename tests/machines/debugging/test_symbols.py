"""Symbols: of ELF files as nm reads them, and of lists."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyvirt.errors import UsageError
from anyvirt.machines.debugging.symbols import Symbol, Symbols


def test_an_elf_file_has_the_symbols_that_nm_finds(program):
    if shutil.which("riscv64-linux-gnu-nm") is None:
        pytest.skip("needs riscv64-linux-gnu-nm (package binutils-riscv64-linux-gnu)")
    path = program("debugged")
    symbols = Symbols()
    assert symbols.load(path) == len(symbols)
    listed = subprocess.run(["riscv64-linux-gnu-nm", path], capture_output=True, text=True, check=True).stdout
    expected = {name: int(address, 16) for address, _, name in map(str.split, listed.splitlines())}
    for name in ("main", "work", "counter", "trapped", "secondary"):
        assert symbols.address(name) == expected[name]
    assert {name for name in symbols.names() if not name.startswith(".")} <= set(expected)
    assert symbols.at(expected["work"]) == "work"
    assert symbols.at(expected["work"] + 2) == "work+0x2"


def test_lists_of_kernels(tmp_path):
    path = tmp_path / "System.map"
    path.write_text(
        "0000000000000000 A absolute\nffffffff80000000 T _start\nffffffff80000100 t local\t[module]\nnoise\n"
    )
    symbols = Symbols()
    assert symbols.load(path) == 2
    assert symbols.address("_start") == 0xFFFF_FFFF_8000_0000
    assert symbols.at(0xFFFF_FFFF_8000_0104) == "local+0x4"
    assert symbols.at(0xFFFF_FFFF_9000_0104) is None
    assert symbols.at(5) is None
    assert list(symbols.names("lo")) == ["local"]


def test_sizes_end_symbols():
    symbols = Symbols()
    symbols.add([Symbol(0x1000, "sized", 16), Symbol(0x2000, "open")])
    assert symbols.at(0x100F) == "sized+0xf"
    assert symbols.at(0x1010) is None
    assert symbols.at(0x2010) == "open+0x10"


def test_files_without_symbols_are_said_to_have_none(tmp_path):
    path = tmp_path / "file"
    for content in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(58), b"\x7fELF\x01\x01" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            Symbols().load(path)
    with pytest.raises(UsageError, match="No such file"):
        Symbols().load(tmp_path / "nothing")


@settings(deadline=None)
@given(position=st.integers(0, 1 << 20), garbage=st.binary(min_size=1, max_size=64))
def test_damaged_files_are_mistakes(position, garbage, tmp_path_factory, elf):
    path = tmp_path_factory.mktemp("damaged") / "elf"
    content = bytearray(elf.read_bytes())
    position %= len(content)
    content[position : position + len(garbage)] = garbage
    path.write_bytes(content)
    try:
        Symbols().load(path)
    except UsageError:
        return


@pytest.fixture(scope="module")
def elf(program):
    return program("debugged")
