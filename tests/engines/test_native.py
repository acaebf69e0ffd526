"""The native engine: the host's own programs, in the host's own world."""

import os
import struct
from pathlib import Path

import pytest

from anyvirt.engines.native import NativeEngine
from anyvirt.errors import NotExecutableError, UnsupportedError
from anyvirt.guest import Guest, Limits
from anyvirt.instance import Streams
from anyvirt.running import run_guest


def test_it_is_always_available():
    assert NativeEngine().probe().available


def test_the_guest_has_the_caller_s_environment_and_its_own():
    completed = run_guest(
        Guest(command=["sh", "-c", "echo $HOME $EXTRA; pwd"], env={"EXTRA": "1"}, workdir="/tmp"),
        on="native",
        capture_output=True,
    )
    assert completed.stdout.decode() == f"{os.environ['HOME']} 1\n/tmp\n"


def test_a_program_for_another_cpu_is_refused(tmp_path):
    """The host's own `true` with another machine number in its header (System V ABI, `e_machine`)."""
    program = bytearray(Path("/bin/true").read_bytes())
    struct.pack_into("<H", program, 18, 22 if program[4] == 1 else 0x9026)
    path = tmp_path / "alpha-true"
    path.write_bytes(program)
    path.chmod(0o755)
    with pytest.raises(NotExecutableError, match=r"it is an? \w+ program"):
        run_guest(Guest(command=[str(path)]), on="native")


@pytest.mark.parametrize(
    ("parts", "option"),
    [
        ({"limits": Limits(memory=1 << 30)}, "--memory"),
        ({"hostname": "x"}, "--hostname"),
        ({"rootfs": Path("/")}, "--rootfs"),
    ],
)
def test_what_it_cannot_honour_it_refuses_and_names_who_can(parts, option):
    with pytest.raises(UnsupportedError, match=f"engine native has no .*{option}.*container.* can"):
        NativeEngine().start(Guest(command=["true"], **parts), Streams())
