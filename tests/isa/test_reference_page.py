"""The reference page of an instruction set: complete, true to the description, current in docs/isa."""

from pathlib import Path

import pytest

from anyvirt.errors import UsageError
from anyvirt.isa.catalogue import described, description
from anyvirt.isa.reference_page import markdown, page, source_of
from anyvirt.isa.riscv64 import bits, riscv64

PAGES = sorted((Path(__file__).parents[2] / "docs" / "isa").glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_pages_in_the_documentation_are_current(path):
    isa = description(path.stem)
    assert path.read_text() == markdown(isa), f"anyvirt isa {isa.name} --markdown > docs/isa/{path.name}"


def test_the_catalogue_finds_what_is_described():
    assert {"riscv64", "riscv32"} <= set(described())
    assert description("riscv64") is riscv64
    with pytest.raises(UsageError, match="did you mean riscv64"):
        description("riscv46")
    with pytest.raises(UsageError, match=r"there are .*riscv64"):
        description("names")


@pytest.mark.parametrize("name", described())
def test_every_encoding_of_every_instruction_set_is_on_its_page(name):
    isa = description(name)
    whole = page(isa)
    shown = [encoding.assembly for item in whole.instructions for encoding in item.encodings]
    assert sorted(shown) == sorted(pattern.assembly for pattern in isa.patterns)
    text = markdown(isa)
    assert all(f"\n#### {', '.join(item.mnemonics)}\n" in text for item in whole.instructions)


def test_semantics_are_shown_as_they_stand():
    assert source_of(bits.andn) == (
        "def andn(cpu: Hart, rd: Register, rs1: Register, rs2: Register) -> None:\n"
        "    cpu.x[rd] = cpu.x[rs1] & ~cpu.x[rs2]"
    )
    (shift,) = page(riscv64, ["sh2add"]).instructions
    assert shift.given == {"shift": "2"}
    assert shift.file == "isa/riscv64/bits.py"
    assert "@" not in shift.semantics


def test_extensions_stand_in_the_manual_s_order():
    seen = [item.encodings[0].extension for item in page(riscv64).instructions]
    assert list(dict.fromkeys(seen)) == [name for name in riscv64.extensions if name in seen]


def test_instructions_are_chosen_by_mnemonic_or_extension():
    assert [item.name for item in page(riscv64, ["c.add", "add"]).instructions] == ["add"]
    chosen = page(riscv64, ["Zbs"]).instructions
    assert {encoding.extension for item in chosen for encoding in item.encodings} == {"Zbs"}
    with pytest.raises(UsageError, match="riscv64 has no instruction and no extension nonsense"):
        page(riscv64, ["add", "nonsense"])


def test_bars_in_encodings_do_not_break_tables():
    (line,) = [line for line in markdown(riscv64, ["jal"]).splitlines() if "1101111" in line]
    assert line.replace("\\|", "").count("|") == 4
