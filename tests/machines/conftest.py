"""Programs without an operating system, built once a session."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
COMPILER = "riscv64-linux-gnu-gcc"
OPTIONS = (
    "-nostdlib", "-static", "-ffreestanding", "-fno-pic", "-O1", "-mcmodel=medany", "-march=rv64gc_zicsr",
    "-g",
    "-Wl,--build-id=none", "-Wl,--omagic", "-Wl,-Ttext=0x80200000",
)  # fmt: skip


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """A function that builds one of the programs by its name and returns the path."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed (Debian: gcc-riscv64-linux-gnu)")
    directory = tmp_path_factory.mktemp("programs")

    def build(name):
        path = directory / name
        if not path.exists():
            subprocess.run([COMPILER, *OPTIONS, "-o", path, PROGRAMS / f"{name}.c"], check=True)
        return path

    return build
