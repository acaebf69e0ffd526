"""The container's filter: each call's answer by an evaluator of BPF, and the kernel's own behaviour."""

import errno
import os
import struct
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.linux import seccomp
from anyvirt.linux.seccomp_policy import ALLOWED, CONDITIONAL, UNIMPLEMENTED
from anyvirt.linux.system_calls import system_call_numbers

from .test_bpf import evaluate

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x50000
ABIS = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
HOST_OF = {"x86_64": "x86_64", "i386": "x86_64", "aarch64": "aarch64", "riscv64": "riscv64"}


def answer(abi, number, *arguments, host=None):
    """What the filter of the host that runs `abi` answers to a call (struct seccomp_data)."""
    arguments = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("=iIQ6Q", number, ABIS[abi], 0, *arguments)
    return evaluate(seccomp.container_filter(host or HOST_OF[abi]), data)


@pytest.mark.parametrize("abi", ABIS)
def test_every_known_call_gets_its_answer(abi):
    for name, number in system_call_numbers(abi).items():
        if name in CONDITIONAL:
            continue
        expected = ERRNO | errno.EPERM
        if name in UNIMPLEMENTED:
            expected = ERRNO | errno.ENOSYS
        elif name in ALLOWED:
            expected = ALLOW
        assert answer(abi, number) == expected, name


@given(st.sampled_from(sorted(ABIS)), st.integers(-(2**31), 2**31 - 1))
def test_an_unknown_call_is_not_implemented(abi, number):
    if number not in system_call_numbers(abi).values():
        assert answer(abi, number) == ERRNO | errno.ENOSYS


@given(st.integers(0, 2**32 - 1), st.integers(0, 500))
def test_a_foreign_abi_kills(architecture, number):
    if architecture not in (ABIS["x86_64"], ABIS["i386"]):
        data = struct.pack("=iIQ6Q", number, architecture, 0, 0, 0, 0, 0, 0, 0)
        assert evaluate(seccomp.container_filter("x86_64"), data) == KILL


@given(st.integers(0, 2**64 - 1))
def test_clone_makes_no_namespaces(flags):
    expected = ALLOW if flags & 0x7E020000 == 0 else ERRNO | errno.EPERM
    assert answer("x86_64", 56, flags) == expected


@pytest.mark.parametrize(("domain", "allowed"), [(1, True), (2, True), (10, True), (16, True), (40, False)])
def test_sockets(domain, allowed):
    assert (answer("x86_64", 41, domain) == ALLOW) == allowed


def test_what_must_never_be_allowed():
    dangerous = """
        mount umount2 move_mount open_tree fsopen fsmount mount_setattr pivot_root unshare setns bpf
        perf_event_open userfaultfd keyctl add_key request_key kexec_load kexec_file_load init_module
        finit_module delete_module reboot swapon swapoff open_by_handle_at quotactl syslog settimeofday
        clock_settime io_uring_setup io_uring_enter iopl ioperm acct nfsservctl lookup_dcookie
    """.split()  # noqa: SIM905
    for abi in ABIS:
        numbers = system_call_numbers(abi)
        for name in dangerous:
            if name in numbers:
                assert answer(abi, numbers[name]) == ERRNO | errno.EPERM, (abi, name)


def test_the_kernel_takes_the_filter_and_obeys():
    if not seccomp.supports(os.uname().machine):
        pytest.skip(f"there is no policy for {os.uname().machine}")
    script = """
        import os, ctypes, errno
        from anyvirt.linux import kernel, seccomp
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.set_seccomp_filter(seccomp.container_filter(os.uname().machine))
        try:
            kernel.unshare(kernel.CLONE_NEWUTS)
        except OSError as error:
            print(error.strerror)
        try:
            kernel.clone3(0)
        except OSError as error:
            print(error.strerror)
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["Operation not permitted", "Function not implemented", "7"], done
