"""System call numbers against the kernel's headers, where they are installed."""

import re
import subprocess
from pathlib import Path

import pytest

from anyvirt.linux.system_calls import system_call_numbers

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "i386": Path("/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
}


@pytest.mark.parametrize("architecture", HEADERS)
def test_the_numbers_are_those_of_the_headers(architecture):
    if not HEADERS[architecture].exists():
        pytest.skip(f"{HEADERS[architecture]} (package linux-libc-dev) is not installed")
    defined = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", HEADERS[architecture].read_text()))
    numbers = system_call_numbers(architecture)
    assert {name: numbers.get(name) for name in defined} == {name: int(n) for name, n in defined.items()}


def test_the_numbers_of_riscv64_are_those_of_its_headers():
    """Its header is built from the generic one, so that only a preprocessor can read it."""
    ours = system_call_numbers("riscv64")
    lines = "".join(f"#ifdef __NR_{name}\n@{name} __NR_{name}\n#endif\n" for name in sorted(ours))
    try:
        text = subprocess.run(
            ["riscv64-linux-gnu-gcc", "-E", "-P", "-"],
            input=f"#include <asm/unistd.h>\n{lines}",
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except FileNotFoundError:
        pytest.skip("needs riscv64-linux-gnu-gcc (package gcc-riscv64-linux-gnu)")
    found = re.findall(r"@(\w+) \(?(\d+)(?: \+ (\d+))?\)?", text)
    headers = {name: int(first) + int(second or 0) for name, first, second in found}
    assert len(headers) > 290
    assert {name: ours[name] for name in headers} == headers


@pytest.mark.parametrize("architecture", ["x86_64", "i386", "aarch64", "riscv64"])
def test_no_number_stands_for_two_calls(architecture):
    numbers = system_call_numbers(architecture)
    assert len(set(numbers.values())) == len(numbers)
    assert numbers["clone3"] == 435


def test_some_numbers_of_the_generic_table():
    numbers = system_call_numbers("riscv64")
    expected = {"openat": 56, "read": 63, "exit": 93, "clone": 220, "execve": 221, "mmap": 222, "wait4": 260}
    expected |= {"statx": 291, "riscv_hwprobe": 258, "riscv_flush_icache": 259}
    assert {name: numbers[name] for name in expected} == expected
    assert "riscv_hwprobe" not in system_call_numbers("aarch64")
    assert "renameat" in system_call_numbers("aarch64")
    assert "renameat" not in numbers


def test_an_unknown_architecture():
    with pytest.raises(KeyError):
        system_call_numbers("vax")
