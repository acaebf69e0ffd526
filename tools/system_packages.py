"""The system packages that the tests need: installed through apt-get when root, otherwise listed.

Usage: system_packages.py NAME...   (the packages' names; none: all that the tests use)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class SystemPackage:
    """A Debian package, a command that shows whether it is there, and why the tests need it."""

    name: str
    command: str
    reason: str


PACKAGES = (
    SystemPackage(
        "gcc-riscv64-linux-gnu", "riscv64-linux-gnu-gcc", "compiles the user engine's test programs"
    ),
    SystemPackage(
        "qemu-user-static", "qemu-riscv64-static", "the oracle of the user engine and of RISC-V code"
    ),
    SystemPackage("binutils", "readelf", "an independent reader of the ELF files that the linker writes"),
    SystemPackage("iproute2", "ip", "shows what network a container sees"),
    SystemPackage("procps", "ps", "shows what processes a container sees"),
    SystemPackage("uidmap", "newuidmap", "maps more than one user into an ordinary user's container"),
)


def missing_packages() -> list[SystemPackage]:
    """Those whose command is not on PATH."""
    return [package for package in PACKAGES if shutil.which(package.command) is None]


def install(packages: list[SystemPackage]) -> bool:
    """Install through apt-get, as root; whether it worked."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    names = [package.name for package in packages]
    for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *names]):
        completed = subprocess.run(
            ["apt-get", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if completed.returncode != 0:
            print(completed.stdout + completed.stderr, file=sys.stderr)
            return False
    return True


def main() -> int:
    """Install what is missing, or say what it is; 0 even then: the tests say what they skip."""
    missing = missing_packages()
    if not missing:
        return 0
    installs = os.geteuid() == 0 and shutil.which("apt-get") is not None
    print(
        "installing for the tests:" if installs else "the tests use these packages, which are missing here:"
    )
    for package in missing:
        print(f"  {package.name}: {package.reason}")
    if not installs:
        print(f"install them with: sudo apt-get install {' '.join(package.name for package in missing)}")
        print("without them the tests that need them are skipped, each with its reason")
    elif not install(missing):
        print(
            "apt-get failed; the tests that need these packages are skipped, each with its reason",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
