"""What it takes to build Linux programs for an ISA, as data: compiler options, start-up code, system calls.

The machine code is given in bytes beside its assembly, because LLVM is not built everywhere with an assembler
for every CPU; a test disassembles it. System call numbers follow each architecture's table in Linux
(arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyvirt.isa.names import Isa

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class MachineCode:
    """A function in machine code: instructions as hexadecimal bytes with their assembly."""

    name: str
    instructions: tuple[tuple[str, str], ...]
    calls: tuple[int, str, int, int] | None = None
    """A call to patch: offset, symbol, relocation type and addend."""

    @property
    def code(self) -> bytes:
        """The bytes of all instructions."""
        return bytes.fromhex("".join(word for word, _ in self.instructions))


@dataclass(frozen=True)
class ProgramIsa:
    """How programs for one ISA are compiled, started and ended, and how they call the kernel."""

    triple: str
    cpu: str
    features: str
    abi: str
    object_flags: int
    """`e_flags` of the machine code below: the calling convention that the compiler must use too."""
    start: MachineCode
    """Calls `main(argument count, address of the arguments)` and exits with its result."""
    system_call: MachineCode
    """A function with the C calling convention of (number, six arguments)."""
    system_calls: Mapping[str, int]


_X86_64 = ProgramIsa(
    triple="x86_64-unknown-linux-gnu",
    cpu="x86-64",
    features="",
    abi="",
    object_flags=0,
    start=MachineCode(
        "_start",
        (
            ("31ed", "xor ebp, ebp"),
            ("488b3c24", "mov rdi, qword ptr [rsp]"),
            ("488d742408", "lea rsi, [rsp + 8]"),
            ("4883e4f0", "and rsp, 0xfffffffffffffff0"),
            ("e800000000", "call main"),
            ("89c7", "mov edi, eax"),
            ("b8e7000000", "mov eax, 0xe7"),
            ("0f05", "syscall"),
            ("0f0b", "ud2"),
        ),
        calls=(16, "main", 4, -4),
    ),
    system_call=MachineCode(
        "system_call",
        (
            ("4889f8", "mov rax, rdi"),
            ("4889f7", "mov rdi, rsi"),
            ("4889d6", "mov rsi, rdx"),
            ("4889ca", "mov rdx, rcx"),
            ("4d89c2", "mov r10, r8"),
            ("4d89c8", "mov r8, r9"),
            ("4c8b4c2408", "mov r9, qword ptr [rsp + 8]"),
            ("0f05", "syscall"),
            ("c3", "ret"),
        ),
    ),
    system_calls={
        "read": 0, "write": 1, "close": 3, "mmap": 9, "munmap": 11, "rt_sigprocmask": 14, "ioctl": 16,
        "madvise": 28, "getpid": 39, "socket": 41, "clone": 56, "execve": 59, "wait4": 61, "kill": 62,
        "uname": 63, "fcntl": 72, "fsync": 74, "chdir": 80, "fchown": 93, "umask": 95, "getppid": 110,
        "setsid": 112, "setgroups": 116, "setresuid": 117, "setresgid": 119, "chroot": 161, "sync": 162,
        "mount": 165, "umount2": 166, "reboot": 169, "sethostname": 170, "getdents64": 217, "exit_group": 231,
        "openat": 257, "mkdirat": 258, "unlinkat": 263, "symlinkat": 266, "ppoll": 271, "signalfd4": 289,
        "dup3": 292, "pipe2": 293, "finit_module": 313,
    },
)  # fmt: skip

_RISCV64 = ProgramIsa(
    triple="riscv64-unknown-linux-gnu",
    cpu="generic-rv64",
    # Loads of typed Python may be misaligned, which Linux supports in user space (Documentation/arch/riscv/
    # uabi.rst, "Misaligned accesses"). Without the feature LLVM takes every load apart into bytes.
    features="+m,+a,+f,+d,+c,+unaligned-scalar-mem,-relax",
    abi="lp64d",
    object_flags=5,  # compressed instructions, double-precision float arguments in registers
    start=MachineCode(
        "_start",
        (
            ("03350100", "ld a0, 0(sp)"),
            ("93058100", "addi a1, sp, 8"),
            ("137101ff", "andi sp, sp, -0x10"),
            ("97000000", "auipc ra, 0"),
            ("e7800000", "jalr ra"),
            ("9308e005", "addi a7, zero, 0x5e"),
            ("73000000", "ecall"),
            ("73001000", "ebreak"),
        ),
        calls=(12, "main", 19, 0),
    ),
    system_call=MachineCode(
        "system_call",
        (
            ("93080500", "mv a7, a0"),
            ("13850500", "mv a0, a1"),
            ("93050600", "mv a1, a2"),
            ("13860600", "mv a2, a3"),
            ("93060700", "mv a3, a4"),
            ("13870700", "mv a4, a5"),
            ("93070800", "mv a5, a6"),
            ("73000000", "ecall"),
            ("67800000", "ret"),
        ),
    ),
    system_calls={
        "dup3": 24, "fcntl": 25, "ioctl": 29, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36,
        "umount2": 39, "mount": 40, "chdir": 49, "chroot": 51, "fchown": 55, "openat": 56, "close": 57,
        "pipe2": 59, "getdents64": 61, "read": 63, "write": 64, "ppoll": 73, "signalfd4": 74, "sync": 81,
        "fsync": 82, "exit_group": 94, "kill": 129, "rt_sigprocmask": 135, "reboot": 142,
        "setresuid": 147, "setresgid": 149, "setsid": 157, "setgroups": 159, "uname": 160,
        "sethostname": 161, "umask": 166, "getpid": 172, "getppid": 173, "socket": 198, "munmap": 215,
        "clone": 220, "execve": 221, "mmap": 222, "madvise": 233, "wait4": 260, "finit_module": 273,
    },
)  # fmt: skip

PROGRAM_ISAS: Mapping[Isa, ProgramIsa] = {Isa.X86_64: _X86_64, Isa.RISCV64: _RISCV64}
"""One entry for each ISA that programs can be built for."""
