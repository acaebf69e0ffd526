"""`anyvirt isa`: the list, the page, one instruction, and all of them as JSON."""

import json
import subprocess
from pathlib import Path

import pytest

from anyvirt.isa.catalogue import described
from anyvirt.isa.riscv64 import riscv64


@pytest.fixture
def run(anyvirt_command):
    def run(*words, status=0):
        completed = subprocess.run(
            (*anyvirt_command, "isa", *words), capture_output=True, text=True, timeout=60
        )
        assert completed.returncode == status, completed.stderr
        return completed.stdout if status == 0 else completed.stderr

    return run


def test_every_described_instruction_set_is_listed(run):
    text = run()
    rows = {row["name"]: row for row in json.loads(run("--json"))}
    assert list(rows) == described()
    assert all(name in text for name in rows)
    assert rows["riscv64"]["encodings"] == len(riscv64.patterns)
    assert rows["riscv64"]["executors"][:2] == ["reference", "interpreter"]
    assert {"name": "x", "count": 32, "width": 32} in rows["riscv32"]["registers"]


def test_the_page_shows_registers_state_and_semantics(run):
    text = run("riscv64")
    for words in (
        "RISC-V RV64GC", "zero ra sp gp", "reservation_address", "0xc01  time", "Zicsr", "fadd.s",
        "imm[20|10:1|11|19:12] rd 1101111", "cpu.x[rd] = cpu.x[rs1] & ~cpu.x[rs2]",
    ):  # fmt: skip
        assert words in text


def test_single_instructions_and_extensions_are_shown(run):
    text = run("riscv64", "add", "Zicond")
    assert "0000000 rs2 rs1 000 rd 0110011" in text
    assert "1001 rd/rs1 rs2 10" not in text
    assert "czero.eqz {rd}, {rs1}, {rs2}" in text
    (add,) = json.loads(run("riscv64", "add", "--json"))["instructions"]
    assert add["semantics"].endswith("cpu.x[rd] = cpu.x[rs1] + cpu.x[rs2]")


def test_markdown_is_the_page_of_the_documentation(run):
    page = Path(__file__).parents[2] / "docs" / "isa" / "riscv64.md"
    assert run("riscv64", "--markdown") == page.read_text()


def test_encoded_instructions_are_shown(run):
    assert run("riscv64", "--decode", "0x00b50533") == "add a0, a0, a1\n"
    assert run("riscv64", "--decode", "852e") == "c.mv a0, a1\n"
    assert run("riscv64", "--decode", "0xff5ff06f", "--pc", "0x1000") == "jal zero, 0xff4\n"
    found = json.loads(run("riscv64", "--decode", "0x00b50533", "--json"))
    assert (found["assembly"], found["extension"], found["operands"]) == (
        "add a0, a0, a1", "I", {"rs2": 11, "rs1": 10, "rd": 10},
    )  # fmt: skip


def test_lines_are_assembled(run):
    assert run("riscv64", "--assemble", "top: c.li a0, 1; j top", "--pc", "0x40").splitlines() == [
        "0x40: 05 45                    c.li a0, 1",
        "0x42: 6f f0 ff ff              jal zero, 0x40",
    ]
    assert json.loads(run("riscv64", "--assemble", "ret", "--json")) == {"address": 0, "code": "67800000"}


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (("riscv46",), 2, "did you mean riscv64"),
        (("riscv64", "frobnicate"), 2, "riscv64 has no instruction and no extension frobnicate"),
        (("riscv64", "--decode", "0x0"), 1, "0x0 is no instruction of riscv64"),
        (("riscv64", "--decode", "0x0533"), 1, "0x0533 is no instruction of riscv64"),
        (("riscv64", "--decode", "xyz"), 2, "no hexadecimal number"),
        (("riscv64", "--decode", "0x13", "--pc", "here"), 2, "no number"),
        (("riscv64", "--assemble", "addi a0"), 2, "line 1: addi a0: the form is addi {rd}, {rs1}, {imm}"),
        (("--markdown",), 2, "needs the name of an instruction set"),
    ],
)
def test_mistakes_end_in_one_sentence(run, words, status, reason):
    text = run(*words, status=status)
    assert text.startswith("anyvirt: ")
    assert reason in text
    assert text.count("\n") == 1
