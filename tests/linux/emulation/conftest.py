"""Fixtures for the user-space emulation: the emulator's command, foreign programs, and their oracles."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyvirt.images.debian import Archive, InconsistentArchiveError, PackageError

CHECKOUT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(__file__).parent / "programs"
EMULATOR = (sys.executable, "-I", "-S", str(CHECKOUT / "src/anyvirt/linux/emulation/__main__.py"))


@dataclass(frozen=True)
class Result:
    """What a command printed and how it ended; a death by signal n is -n."""

    status: int
    output: str
    errors: str


def run(command, *, directory, input=None, timeout=60, **environment):
    """Run a command in `directory` with a small environment of its own."""
    keep = {name: os.environ[name] for name in ("ANYVIRT_STATE", "HOME", "PATH") if name in os.environ}
    done = subprocess.run(
        [os.fspath(word) for word in command],
        cwd=directory,
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        env={**keep, "LC_ALL": "C", "TZ": "UTC", **environment},
        capture_output=True,
        timeout=timeout,
        text=True,
        errors="backslashreplace",
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def emulate():
    """Run a RISC-V program in the emulator: `emulate(program, *arguments, directory=...)`."""

    def emulate_program(*command, **options):
        return run((*EMULATOR, *command), **options)

    return emulate_program


def _tool(name, package):
    if shutil.which(name) is None:
        pytest.skip(f"needs {name} (package {package})")
    return name


@pytest.fixture(scope="session")
def qemu():
    """QEMU's user space emulation, the oracle for what depends on the instruction set."""
    return _tool("qemu-riscv64-static", "qemu-user-static")


@pytest.fixture(scope="session")
def compile_riscv64(tmp_path_factory):
    """Compile C (a path, or a program as text) to a static RISC-V program."""
    return _compiler("riscv64-linux-gnu-gcc", "gcc-riscv64-linux-gnu", tmp_path_factory)


@pytest.fixture(scope="session")
def compile_host(tmp_path_factory):
    """Compile the same C for the host, whose kernel is the oracle for what does not depend on the ISA."""
    return _compiler("gcc", "gcc", tmp_path_factory)


def _compiler(name, package, tmp_path_factory):
    compiler = _tool(name, package)
    built = {}

    def build(source, *flags):
        key = (source, flags)
        if key not in built:
            directory = tmp_path_factory.mktemp("built")
            path = source
            if not isinstance(source, Path):
                path = directory / "program.c"
                path.write_text(source)
            target = directory / path.stem
            command = [compiler, "-static", "-O2", "-w", *flags, "-o", target, path, "-lm"]
            subprocess.run(command, check=True, timeout=60)
            built[key] = target
        return built[key]

    return build


def debian_package(package, architecture=None):
    """Where a package of Debian's suite trixie is unpacked; skips the test if it cannot be had."""
    try:
        archive = Archive(CHECKOUT / ".tools" / "debian", suite="trixie", architecture=architecture)
        return archive.fetch(package)
    except PackageError as error:
        if os.environ.get("CI") and not isinstance(error, InconsistentArchiveError):
            raise
        pytest.skip(f"Debian's {package} of suite trixie cannot be fetched: {error}")


@pytest.fixture(scope="session")
def host_busybox():
    """The host's build of the very busybox that `riscv64_busybox` is."""
    return debian_package("busybox-static") / "usr/bin/busybox"
