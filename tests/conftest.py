"""Fixtures of all tests: a state directory of their own, the command line, Debian's foreign programs."""

import os
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT / "tools"))

from debian_packages import Archive, InconsistentArchiveError, PackageError  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def state_directory(tmp_path_factory):
    """One state directory for the whole run, never the user's; what is compiled serves all tests."""
    directory = tmp_path_factory.mktemp("state")
    before = os.environ.get("ANYVIRT_STATE")
    os.environ["ANYVIRT_STATE"] = str(directory)
    yield directory
    if before is None:
        del os.environ["ANYVIRT_STATE"]
    else:
        os.environ["ANYVIRT_STATE"] = before


@pytest.fixture(scope="session")
def anyvirt_command():
    """The words that start the command line of the package under test."""
    return (sys.executable, "-m", "anyvirt")


@pytest.fixture(scope="session")
def riscv64_busybox():
    """Debian's static busybox for RISC-V 64, fetched once into the checkout's `.tools`."""
    try:
        archive = Archive(CHECKOUT / ".tools" / "debian", suite="trixie", architecture="riscv64")
        return archive.fetch("busybox-static") / "usr/bin/busybox"
    except PackageError as error:
        if os.environ.get("CI") and not isinstance(error, InconsistentArchiveError):
            raise
        pytest.skip(f"Debian's busybox-static for riscv64 cannot be fetched: {error}")
