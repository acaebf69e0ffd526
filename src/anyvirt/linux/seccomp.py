"""System call filtering: the container's policy compiled to a BPF program (seccomp(2), seccomp_data).

A call made through an unknown ABI kills the process: its numbers would mean something else.
"""

from __future__ import annotations

import errno
import sys
from functools import cache
from typing import TYPE_CHECKING

from anyvirt.linux import bpf
from anyvirt.linux.seccomp_policy import ALLOWED, CONDITIONAL, UNIMPLEMENTED
from anyvirt.linux.system_calls import system_call_numbers

if TYPE_CHECKING:
    from anyvirt.linux.seccomp_policy import Condition

_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000
_OFFSET_NUMBER = 0
_OFFSET_ARCHITECTURE = 4
_OFFSET_ARGUMENTS = 16

# include/uapi/linux/audit.h: the ELF machine, with bits for 64-bit and little-endian ABIs.
_AUDIT_ARCHITECTURES = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "riscv64": 0xC00000F3,
}
_SECONDARY = {"x86_64": ("i386",)}

_ALLOW = bpf.give(_RET_ALLOW)
_DENY = bpf.give(_RET_ERRNO | errno.EPERM)
_UNKNOWN = bpf.give(_RET_ERRNO | errno.ENOSYS)


def supports(machine: str) -> bool:
    """Whether there is a policy for the host's CPU, `machine` as uname(2) names it."""
    return machine in _AUDIT_ARCHITECTURES


@cache
def container_filter(machine: str) -> bytes:
    """The default filter of containers on a host whose CPU is `machine`, as seccomp(2) takes it."""
    program = bpf.give(_RET_KILL_PROCESS)
    for name in reversed((machine, *_SECONDARY.get(machine, ()))):
        program = bpf.if_equal(_AUDIT_ARCHITECTURES[name], _decide(name), program)
    return bpf.assemble([*bpf.load(_OFFSET_ARCHITECTURE), *program])


def _decide(machine: str) -> bpf.Program:
    """Decide one ABI's calls by number: runs of numbers with the same answer are one leaf."""
    answers = {number: _answer(name) for name, number in system_call_numbers(machine).items()}
    starts, leaves = [0], [answers.get(0, _UNKNOWN)]
    for number in range(1, max(answers) + 2):
        answer = answers.get(number, _UNKNOWN)
        if answer is not leaves[-1]:
            starts.append(number)
            leaves.append(answer)
    return [*bpf.load(_OFFSET_NUMBER), *bpf.search(starts, leaves)]


def _answer(name: str) -> bpf.Program:
    if name in CONDITIONAL:
        return _test(CONDITIONAL[name])
    if name in UNIMPLEMENTED:
        return _UNKNOWN
    return _ALLOW if name in ALLOWED else _DENY


def _test(condition: Condition) -> bpf.Program:
    listed, other = (_ALLOW, _DENY) if condition.allows else (_DENY, _ALLOW)
    program = other
    for value in condition.values:
        program = bpf.if_equal(value, listed, program)
    high_first = sys.byteorder == "big"
    offset = _OFFSET_ARGUMENTS + 8 * condition.argument + (4 if high_first else 0)
    return [*bpf.load(offset), *bpf.mask(condition.mask), *program]
