"""System call numbers against the kernel headers of this host, where they are installed."""

import re
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


def test_an_unknown_architecture():
    with pytest.raises(KeyError):
        system_call_numbers("vax")
