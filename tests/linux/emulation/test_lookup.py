"""What execve(2) finds: programs, scripts and interpreters, as fs/exec.c and fs/binfmt_script.c do."""

import errno
import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.linux.emulation.programs import _script_line, find_executable

WORD = st.binary(min_size=1, max_size=40).filter(lambda word: not set(word) & set(b" \t\n\0"))


@given(WORD, st.binary(max_size=60).filter(lambda text: b"\n" not in text and b"\0" not in text))
def test_a_script_s_line_gives_an_interpreter_and_at_most_one_argument(interpreter, rest):
    found, option = _script_line(b"#! " + interpreter + b" " + rest + b"\nmore")
    assert found == interpreter
    assert b"".join(option) == rest.strip(b" \t")
    assert len(option) == bool(rest.strip(b" \t"))


@pytest.mark.parametrize("line", [b"#!\n", b"#!   \t \n", b"#!" + b"x" * 254])
def test_a_line_without_a_whole_interpreter_is_not_a_script(line):
    with pytest.raises(OSError) as caught:
        _script_line(line)
    assert caught.value.errno == errno.ENOEXEC


def _script(path, line, mode=0o755):
    path.write_bytes(line)
    path.chmod(mode)
    return bytes(path)


def test_arguments_of_nested_scripts_are_those_the_kernel_makes(tmp_path):
    """The oracle is the kernel: an interpreter that shows its arguments, reached through two scripts."""
    inner = _script(tmp_path / "inner", b"#!/bin/echo first option\n")
    outer = _script(tmp_path / "outer", b"#!" + inner + b" second\n")
    shown = subprocess.run([outer, "argument"], capture_output=True, check=True).stdout
    found = find_executable(outer, (b"zero", b"argument"))
    os.close(found.fd)
    assert b" ".join(found.arguments[1:]) + b"\n" == shown
    assert found.name == b"/bin/echo"
    assert os.path.samefile(found.path, b"/bin/echo")


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda path: bytes(path / "missing"), errno.ENOENT),
        (bytes, errno.EACCES),
        (lambda path: _script(path / "x", b"#!/bin/sh\n", 0o644), errno.EACCES),
        (lambda path: _script(path / "x", b"#!" + bytes(path / "x") + b"\n"), errno.ELOOP),
        (lambda path: _script(path / "x", b"#!/no/such\n"), errno.ENOENT),
        (lambda path: bytes(path / "x") + b"/y", errno.ENOENT),
        (lambda path: b"/dev/null", errno.EACCES),
    ],
    ids=["missing", "directory", "not executable", "endless", "lost", "below nothing", "device"],
)
def test_what_cannot_be_executed_has_the_kernel_s_error(make, number, tmp_path):
    path = make(tmp_path)
    with pytest.raises(OSError) as ours:
        find_executable(path, (b"x",))
    with pytest.raises(OSError) as theirs:
        os.posix_spawn(path, [b"x"], {})
    assert ours.value.errno == theirs.value.errno == number


def test_no_descriptor_is_left_open(tmp_path):
    script = _script(tmp_path / "x", b"#!/no/such\n")
    before = os.listdir("/proc/self/fd")
    for path in (script, bytes(tmp_path), b"/dev/null"):
        with pytest.raises(OSError):
            find_executable(path, (b"x",))
    assert os.listdir("/proc/self/fd") == before
