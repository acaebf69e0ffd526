"""Capabilities: the named privileges of Linux, and the few of them a container keeps (capabilities(7))."""

from __future__ import annotations

import errno
from enum import IntEnum

from anyvirt.linux import kernel


class LinuxCapability(IntEnum):
    """Capabilities by number (include/uapi/linux/capability.h)."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8
    LINUX_IMMUTABLE = 9
    NET_BIND_SERVICE = 10
    NET_BROADCAST = 11
    NET_ADMIN = 12
    NET_RAW = 13
    IPC_LOCK = 14
    IPC_OWNER = 15
    SYS_MODULE = 16
    SYS_RAWIO = 17
    SYS_CHROOT = 18
    SYS_PTRACE = 19
    SYS_PACCT = 20
    SYS_ADMIN = 21
    SYS_BOOT = 22
    SYS_NICE = 23
    SYS_RESOURCE = 24
    SYS_TIME = 25
    SYS_TTY_CONFIG = 26
    MKNOD = 27
    LEASE = 28
    AUDIT_WRITE = 29
    AUDIT_CONTROL = 30
    SETFCAP = 31
    MAC_OVERRIDE = 32
    MAC_ADMIN = 33
    SYSLOG = 34
    WAKE_ALARM = 35
    BLOCK_SUSPEND = 36
    AUDIT_READ = 37
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40


CONTAINER_DEFAULT = frozenset(
    {
        LinuxCapability.CHOWN,
        LinuxCapability.DAC_OVERRIDE,
        LinuxCapability.FSETID,
        LinuxCapability.FOWNER,
        LinuxCapability.NET_RAW,
        LinuxCapability.SETGID,
        LinuxCapability.SETUID,
        LinuxCapability.SETFCAP,
        LinuxCapability.SETPCAP,
        LinuxCapability.NET_BIND_SERVICE,
        LinuxCapability.SYS_CHROOT,
        LinuxCapability.KILL,
        LinuxCapability.AUDIT_WRITE,
    }
)
"""What Docker grants by default, without MKNOD: no device made in a container could be opened anyway."""


def mask(capabilities: frozenset[LinuxCapability]) -> int:
    """The bit mask of a set of capabilities."""
    return sum(1 << capability for capability in capabilities)


CONTAINER_MASK = mask(CONTAINER_DEFAULT)


def has(capability: LinuxCapability) -> bool:
    """Whether this process may use `capability` now."""
    effective, _, _ = kernel.get_capabilities()
    return bool(effective >> capability & 1)


def restrict(kept: int) -> None:
    """Give up, for this process and all it will ever start, every capability outside the mask `kept`.

    The inheritable and ambient sets are emptied: nothing but being uid 0 gives a program capabilities.
    """
    for number in range(64):
        if kept >> number & 1:
            continue
        try:
            kernel.prctl(kernel.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The kernel knows fewer capabilities than 64: this number is the first that it has not.
            break
    kernel.prctl(kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL)
    _, permitted, _ = kernel.get_capabilities()
    kernel.set_capabilities(effective=permitted & kept, permitted=permitted & kept, inheritable=0)
