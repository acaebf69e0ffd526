"""Debian's own programs as packaged: against QEMU one by one, and whole scripts against the host's builds."""

import os
import shutil
from collections import deque
from pathlib import Path

import pytest

import anyvirt
from anyvirt.engines import get
from anyvirt.images.debian import Archive, PackageError

from .conftest import CHECKOUT, debian_package, run

SCRIPTS = sorted(Path(__file__).parent.joinpath("distribution").glob("*.sh"))
FEW = (
    "bash", "coreutils", "grep", "libacl1", "libattr1", "libc6", "libcap2", "libgmp10", "libpcre2-8-0",
    "libselinux1", "libssl3t64", "libtinfo6", "libzstd1", "sed", "zlib1g",
)  # fmt: skip
"""With all that they need: asking for that takes a second for each."""
MANY = (
    "bash", "coreutils", "diffutils", "findutils", "git", "grep", "gzip", "mawk", "perl-base",
    "python3-minimal", "sed", "sqlite3", "tar", "xz-utils", "zstd",
)  # fmt: skip

_CHOICES = {"awk": "mawk"}
"""What is chosen where several packages provide what is needed."""


def distribution(directory, packages, architecture=None):
    """A new directory with packages, unpacked but not configured."""
    for place in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "tmp"):
        (directory / place).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (directory / name).symlink_to(f"usr/{name}")
    for package in packages:
        tree = debian_package(package, architecture)
        shutil.copytree(tree / "usr", directory / "usr", symlinks=True, dirs_exist_ok=True)
    (directory / "usr/bin/sh").symlink_to("bash")
    (directory / "tmp").chmod(0o1777)
    return directory


def with_dependencies(packages, architecture=None):
    """The packages and all that they depend on."""
    wanted, found = deque(packages), []
    try:
        archive = Archive(CHECKOUT / ".tools" / "debian", suite="trixie", architecture=architecture)
        while wanted:
            package = wanted.popleft().partition(":")[0]
            package = _CHOICES.get(package, package)
            if package not in found:
                found.append(package)
                wanted += archive.dependencies(package)
    except PackageError as error:
        pytest.skip(f"Debian's packages of suite trixie cannot be had: {error}")
    return found


@pytest.fixture(scope="session")
def few(tmp_path_factory):
    """A root with little more than a shell."""
    return distribution(tmp_path_factory.mktemp("few") / "root", FEW, "riscv64")


COMMANDS = [
    ["sort", "-rn", "words"],
    ["wc", "words"],
    ["sha512sum", "words"],
    ["ls", "-la", "--time-style=+%s", "--color=always"],
    ["date", "-u", "-d", "2020-02-03 04:05:06", "+%c %s"],
    ["printf", "%.20g %a %x\\n", "0.1", "3.25", "255"],
    ["grep", "-nE", "^(a|b)+$", "words"],
    ["sed", "-E", "s/(.)(.)/\\2\\1/g;2q", "words"],
    ["bash", "-c", "x=(a b c); echo ${x[@]^^} $((2**40)) ${BASH_VERSION}; echo ${x[*]/b/q}; exit 3"],
    ["numfmt", "--to=si", "123456789"],
    ["cat", "missing"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_programs_do_what_they_do_under_qemu(command, few, qemu, tmp_path, emulate):
    (tmp_path / "words").write_text("".join(f"{word}\n" for word in ("b", "abba", "cab", "10", "9", "ab")))
    name, *arguments = command
    program = few / "usr/bin" / name
    (tmp_path / name).symlink_to(program)
    expected = run((qemu, "-L", few, "-0", name, program, *arguments), directory=tmp_path)
    # Its linker is where it says only in its own root, so it is run by hand here.
    linker = few / "usr/lib/ld-linux-riscv64-lp64d.so.1"
    path = few / "usr/lib/riscv64-linux-gnu"
    actual = emulate(linker, "--library-path", path, "--argv0", name, program, *arguments, directory=tmp_path)
    assert actual == expected
    assert "shared libraries" not in expected.errors


def run_script(root, script, engine):
    """What a script prints in a root, and how it ends."""
    done = anyvirt.run(
        ["bash", "-s"], on=engine, rootfs=root, input=script.read_bytes(), capture_output=True, timeout=500
    )
    return done.stdout.decode(), done.stderr.decode(), done.status.code


def test_a_shell_and_its_tools_work_together_in_their_root(few):
    script = "set -o pipefail; seq 100 | grep 7 | sed s/7/x/ | sort -r | head -3; ls /bin/sed; sh -c 'exit 4'"
    done = anyvirt.run(["bash", "-c", script], on="user", rootfs=few, capture_output=True)
    assert (done.stdout, done.stderr, done.status.code) == (b"x9\nx8\nx7\n/bin/sed\n", b"", 4)


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """The roots of the same packages for RISC-V and for the host."""
    availability = get("container").probe()
    if not availability.available:
        pytest.skip(f"engine container is not available: {availability.reason}")
    if os.uname().machine != "x86_64":
        pytest.skip("the host's packages are those of x86-64")
    directory = tmp_path_factory.mktemp("many")
    return (
        distribution(directory / "foreign", with_dependencies(MANY, "riscv64"), "riscv64"),
        distribution(directory / "native", with_dependencies(MANY)),
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_do_what_they_do_natively(script, many):
    foreign, native = many
    expected = run_script(native, script, "container")
    assert expected[0].count("\n") >= 10, expected
    assert run_script(foreign, script, "user") == expected
