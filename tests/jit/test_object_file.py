"""Object files: what LLVM and gcc write is read; what is damaged is refused."""

import contextlib
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyvirt.jit.object_file import LinkError, ObjectFile, SectionFlags, SectionType, read_object

SOURCE = """
int counter = 5;
static volatile long table[100];
const char *name(void) { return "name"; }
extern int other(int);
int bump(int by) { table[3] = by; return other(counter += by); }
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    for tool in ("gcc", "nm", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    directory = tmp_path_factory.mktemp("objects")
    (directory / "a.c").write_text(SOURCE)
    command = ["gcc", "-c", "-O1", "-fno-pic", "-o", directory / "a.o", directory / "a.c"]
    subprocess.run(command, check=True, timeout=60)
    return directory / "a.o"


def test_symbols_agree_with_nm(compiled):
    item = read_object(compiled.read_bytes())
    ours = {
        (symbol.name, "U" if symbol.section == 0 else f"{symbol.value:016x}")
        for symbol in item.symbols
        if symbol.binding == 1
    }
    listed = subprocess.run(["nm", "-g", compiled], capture_output=True, text=True, check=True).stdout
    theirs = {
        (fields[-1], "U" if fields[-2] == "U" else fields[0])
        for fields in map(str.split, listed.splitlines())
    }
    assert ours == theirs
    assert len(ours) == 4


def test_relocations_agree_with_readelf(compiled):
    item = read_object(compiled.read_bytes())
    listed = subprocess.run(["readelf", "-rW", compiled], capture_output=True, text=True, check=True).stdout
    theirs = [
        (int(fields[0], 16), int(fields[1][8:], 16))
        for fields in map(str.split, listed.splitlines())
        if len(fields) >= 4 and fields[2].startswith("R_X86_64")
    ]
    ours = [(place.offset, place.type) for section in item.sections for place in section.relocations]
    assert sorted(ours) == sorted(theirs)
    assert ours


def test_sections_have_their_kind_and_content(compiled):
    sections = {section.name: section for section in read_object(compiled.read_bytes()).sections}
    assert sections[".text"].flags == SectionFlags.ALLOC | SectionFlags.EXECUTE
    assert sections[".data"].data == (5).to_bytes(4, "little")
    assert sections[".bss"].type == SectionType.NOBITS
    assert (sections[".bss"].size, sections[".bss"].data) == (800, b"")
    assert sections[".rodata.str1.1"].data == b"name\0"


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x01\x01\x01" + bytes(60)])
def test_other_files_are_refused(content):
    with pytest.raises(LinkError, match="not a 64-bit little-endian ELF object file"):
        read_object(content)


def test_executables_are_refused():
    with open("/proc/self/exe", "rb") as file, pytest.raises(LinkError, match="not a relocatable object"):
        read_object(file.read())


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damage_is_noticed_or_harmless(compiled, data):
    content = bytearray(compiled.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with contextlib.suppress(LinkError):
        assert isinstance(read_object(bytes(content[:cut])), ObjectFile)
