"""Finding what a command names, as execvp(3) does, inside a root that is never left."""

import os
from pathlib import Path

import pytest

from anyvirt.errors import CommandNotFoundError, NotExecutableError
from anyvirt.guest import Guest, Mount
from anyvirt.isa.names import Isa
from anyvirt.linux.program import find_program


@pytest.fixture
def root(tmp_path):
    """A root filesystem with one program, `true`, copied from the host."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    put(root / "bin/true", Path("/bin/true").read_bytes())
    return root


def put(path, data, mode=0o755):
    path.write_bytes(data)
    path.chmod(mode)
    return path


def find(root, *command, **parts):
    return find_program(Guest(command=command, rootfs=root, **parts))


def test_a_command_is_found_through_path(root):
    program = find(root, "true")
    assert (program.path, program.host_path) == ("/bin/true", str(root / "bin/true"))
    assert program.isa is Isa.host()


def test_the_guest_s_own_path_counts(root):
    (root / "opt").mkdir()
    put(root / "opt/tool", (root / "bin/true").read_bytes())
    assert find(root, "tool", env={"PATH": "/opt"}).path == "/opt/tool"
    with pytest.raises(CommandNotFoundError, match="PATH is /bin"):
        find(root, "tool", env={"PATH": "/bin"})


def test_a_relative_command_is_looked_up_in_the_working_directory(root):
    assert find(root, "./true", workdir="/bin").host_path == str(root / "bin/true")
    with pytest.raises(CommandNotFoundError):
        find(root, "./true", workdir="/")


def test_links_are_followed_inside_the_root_only(root):
    (root / "bin/sh").symlink_to("/bin/true")
    assert find(root, "sh").host_path == str(root / "bin/true")
    (root / "bin/out").symlink_to("../../../../../../../../bin/true")
    assert find(root, "/bin/out").host_path == str(root / "bin/true")
    (root / "bin/passwd").symlink_to("/etc/passwd")
    with pytest.raises(CommandNotFoundError):
        find(root, "/bin/passwd")
    (root / "bin/loop").symlink_to("loop")
    with pytest.raises(NotExecutableError, match="symbolic links"):
        find(root, "/bin/loop")


def test_a_mounted_directory_is_part_of_the_guest_s_view(root, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    put(tools / "tool", (root / "bin/true").read_bytes())
    program = find(root, "/tools/tool", mounts=(Mount(tools, "/tools"),))
    assert program.host_path == str(tools / "tool")


def test_a_script_is_its_interpreter(root):
    put(root / "bin/script", b"#! /bin/true -x\n")
    assert find(root, "script").path == "/bin/true"


@pytest.mark.parametrize(
    ("name", "data", "mode", "error", "message"),
    [
        (
            "missing-interpreter",
            b"#!/bin/nothing\n",
            0o755,
            CommandNotFoundError,
            "its interpreter /bin/nothing",
        ),
        ("endless", b"#!/bin/endless\n", 0o755, NotExecutableError, "without end"),
        ("nameless", b"#!\n", 0o755, NotExecutableError, "names no interpreter"),
        ("empty", b"", 0o755, NotExecutableError, "empty file"),
        ("text", b"echo hi\n", 0o755, NotExecutableError, "not an ELF file"),
        ("plain", b"\x7fELF", 0o644, NotExecutableError, "permission denied"),
        ("truncated", b"\x7fELF" + bytes(20), 0o755, NotExecutableError, "truncated"),
    ],
)
def test_what_cannot_be_executed_says_why(root, name, data, mode, error, message):
    put(root / "bin" / name, data, mode)
    with pytest.raises(error, match=message):
        find(root, f"/bin/{name}")


def test_directories_devices_and_absence(root):
    with pytest.raises(NotExecutableError, match="directory"):
        find(root, "/bin")
    with pytest.raises(NotExecutableError, match="not a regular file"):
        find_program(Guest(command=["/dev/null"]))
    with pytest.raises(CommandNotFoundError, match="root filesystem"):
        find(root, "nothing")


def test_a_fifo_does_not_block(root):
    os.mkfifo(root / "bin/fifo", 0o755)
    with pytest.raises(NotExecutableError, match="not a regular file"):
        find(root, "/bin/fifo")
