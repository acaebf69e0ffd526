"""System call numbers against the kernel's headers, of both sides."""

import re
import subprocess

import pytest

from anyvirt.linux.emulation.call_numbers import HOST, RISCV64


def _header_numbers(compiler):
    names = sorted({*HOST, *RISCV64})
    lines = "".join(f"#ifdef __NR_{name}\n@{name} __NR_{name}\n#endif\n" for name in names)
    text = subprocess.run(
        [compiler, "-E", "-P", "-"],
        input=f"#include <asm/unistd.h>\n{lines}",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(r"@(\w+) \(?(\d+)(?: \+ (\d+))?\)?", text)
    return {name: int(first) + int(second or 0) for name, first, second in found}


@pytest.mark.parametrize(
    ("compiler", "package", "ours"),
    [("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu", RISCV64), ("gcc", "gcc", HOST)],
    ids=["riscv64", "host"],
)
def test_numbers_are_those_of_the_headers(compiler, package, ours):
    try:
        headers = _header_numbers(compiler)
    except FileNotFoundError:
        pytest.skip(f"needs {compiler} (package {package})")
    assert len(headers) > 290
    # Headers older than a call do not know it; nothing may contradict them.
    assert {name: number for name, number in ours.items() if headers.get(name, number) != number} == {}
    assert {name for name in headers if name not in ours} == set()


def test_no_number_is_given_twice():
    for numbers in (HOST, RISCV64):
        assert len(set(numbers.values())) == len(numbers)
