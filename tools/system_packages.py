"""The system packages that the tests need: installed through apt-get when root, otherwise listed.

Usage: system_packages.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class SystemPackage:
    """A Debian package, a command or a file that shows whether it is there, and why the tests need it."""

    name: str
    evidence: str
    reason: str

    @property
    def present(self) -> bool:
        """Whether its command is on PATH, or its file exists."""
        return (
            os.path.exists(self.evidence) if "/" in self.evidence else shutil.which(self.evidence) is not None
        )


PACKAGES = (
    SystemPackage("gcc", "gcc", "compiles the native builds that the tests compare with"),
    SystemPackage("libc6-dev", "/usr/include/stdio.h", "the C library for those"),
    SystemPackage(
        "gcc-riscv64-linux-gnu", "riscv64-linux-gnu-gcc", "compiles the user engine's test programs"
    ),
    *(
        SystemPackage(
            f"gcc-{name}-linux-gnu", f"{name}-linux-gnu-gcc", "compiles programs for another instruction set"
        )
        for name in ("mips", "mipsel", "powerpc", "aarch64", "sparc64", "alpha")
    ),
    SystemPackage(
        "libc6-dev-riscv64-cross", "/usr/riscv64-linux-gnu/include/stdio.h", "the C library for those"
    ),
    SystemPackage(
        "qemu-user-static", "qemu-riscv64-static", "the oracle of the user engine and of RISC-V code"
    ),
    SystemPackage(
        "qemu-system-misc", "qemu-system-riscv64", "the oracle of the devices and boards of RISC-V machines"
    ),
    SystemPackage("edid-decode", "edid-decode", "an independent reader of what displays say of themselves"),
    SystemPackage("device-tree-compiler", "dtc", "an independent reader of device trees that boards make"),
    SystemPackage("binutils", "readelf", "an independent reader of the ELF files that the linker writes"),
    SystemPackage("gdb-multiarch", "gdb-multiarch", "the debugger that the gdb server is tested with"),
    SystemPackage("cpio", "cpio", "an independent reader of the initial file systems that are written"),
    SystemPackage("kmod", "/sbin/modprobe", "the oracle of which kernel modules need which"),
    SystemPackage("qemu-utils", "qemu-img", "the oracle of disk images"),
    SystemPackage("opensbi", "/usr/share/qemu/opensbi-riscv64-generic-fw_dynamic.bin", "firmware for that"),
    SystemPackage("erofs-utils", "mkfs.erofs", "makes compressed disks of directories"),
    SystemPackage("squashfs-tools", "mksquashfs", "makes compressed disks of directories"),
    SystemPackage("strace", "strace", "an independent witness of the system calls that programs make"),
    SystemPackage("runc", "runc", "the runtime whose defaults the container engine is compared with"),
    SystemPackage("iproute2", "ip", "shows what network a container sees, and makes taps"),
    SystemPackage(
        "libslirp0",
        "/usr/lib/x86_64-linux-gnu/libslirp.so.0",
        "carries guests' connections in user-mode networking",
    ),
    SystemPackage("passt", "passt", "does the same where libslirp is not there"),
    SystemPackage("procps", "ps", "shows what processes a container sees"),
    SystemPackage("uidmap", "newuidmap", "maps more than one user into an ordinary user's container"),
)


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
    missing = [package for package in PACKAGES if not package.present]
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
