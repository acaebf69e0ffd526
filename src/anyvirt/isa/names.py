"""The names of instruction sets, whether they are described here or only recognised in programs."""

from __future__ import annotations

import os
from enum import StrEnum

from anyvirt.errors import UsageError


class Isa(StrEnum):
    """Instruction sets a guest program can be made of, by their usual Linux names."""

    X86_64 = "x86_64"
    I386 = "i386"
    RISCV64 = "riscv64"
    RISCV32 = "riscv32"
    AARCH64 = "aarch64"
    ARM = "arm"
    MIPS = "mips"
    MIPSEL = "mipsel"
    MIPS64 = "mips64"
    MIPS64EL = "mips64el"
    PPC = "ppc"
    PPC64 = "ppc64"
    PPC64LE = "ppc64le"
    SPARC = "sparc"
    SPARC64 = "sparc64"
    S390X = "s390x"
    ALPHA = "alpha"

    @classmethod
    def host(cls) -> Isa:
        """The instruction set of the host's CPU as its kernel names it (uname(2))."""
        machine = os.uname().machine
        try:
            return cls("i386" if machine in ("i486", "i586", "i686") else machine)
        except ValueError:
            raise UsageError(f"this host's CPU, {machine}, is not one that anyvirt knows") from None
