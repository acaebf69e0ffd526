"""Fixtures of all tests: a state directory of their own, the command line, Debian's foreign programs."""

import os
import sys
import threading
from pathlib import Path

import pytest

from anyvirt.images.debian import Archive, InconsistentArchiveError, PackageError
from anyvirt.linux import kernel

CHECKOUT = Path(__file__).resolve().parent.parent


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


def _debian_package(name, *, of_metapackage=False):
    """Where a riscv64 package of Debian's suite trixie is unpacked; skips the test if it cannot be had."""
    try:
        archive = Archive(CHECKOUT / ".tools" / "debian", suite="trixie", architecture="riscv64")
        return archive.fetch(archive.dependencies(name)[0] if of_metapackage else name)
    except PackageError as error:
        if os.environ.get("CI") and not isinstance(error, InconsistentArchiveError):
            raise
        pytest.skip(f"Debian's {name} for riscv64 cannot be fetched: {error}")


@pytest.fixture(scope="session")
def debian_riscv64():
    """A function that gives the root of a Debian package for RISC-V 64, fetched once."""
    return _debian_package


@pytest.fixture(scope="session")
def riscv64_busybox():
    """Debian's static busybox for RISC-V 64, fetched once into the checkout's `.tools`."""
    return _debian_package("busybox-static") / "usr/bin/busybox"


@pytest.fixture(scope="session")
def riscv64_kernel():
    """The root of Debian's kernel package for RISC-V 64: `boot` and `usr/lib/modules`; 112 MB to fetch."""
    return _debian_package("linux-image-riscv64", of_metapackage=True)


@pytest.fixture
def in_namespace():
    """Run a function in a thread whose network is a new namespace, with loopback up; its result."""
    if os.getuid() != 0:
        pytest.skip("a namespace of networks needs root")

    def run(function):
        result = []

        def target():
            try:
                kernel.unshare(kernel.CLONE_NEWNET)
                result.append((function(), None))
            except BaseException as error:
                result.append((None, error))

        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
        value, error = result[0]
        if error is not None:
            raise error
        return value

    return run


@pytest.fixture(scope="session")
def stored_kernel(state_directory, riscv64_kernel):
    """The same in the store of this run, where engines look for a kernel when none is named."""
    (kernel,) = (riscv64_kernel / "boot").glob("vmlinux-*")
    place = state_directory / "images/kernels" / f"linux-image-{kernel.name.partition('-')[2]}-riscv64"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "root").is_symlink():
        (place / "root").symlink_to(riscv64_kernel)
    return kernel
