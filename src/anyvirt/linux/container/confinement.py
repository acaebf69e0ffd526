"""The last step before foreign code runs: no way to gain privileges, few capabilities, filtered calls."""

from __future__ import annotations

import os

# os.wait4 imports this module when it is first called, which in a container is too late.
import resource  # noqa: F401
import sys

from anyvirt.linux import capabilities, kernel, seccomp


def hide_from_guest() -> None:
    """Keep the guest from looking into this process, which still holds memory and files of the host.

    Without this, a guest's root could reach the host's Python through /proc/PID/exe (CVE-2019-5736). It must
    be called after every change of the process's ids, since that changes it back.
    """
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def prepare() -> None:
    """Compile the filter once, before the processes are forked that will use it."""
    machine = os.uname().machine
    if seccomp.supports(machine):
        seccomp.container_filter(machine)


def stop_importing() -> None:
    """Make every further import fail.

    A process that has changed its root would find the guest's files where Python's modules are, and run them
    with its own privileges.
    """
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


def confine() -> None:
    """Give up all privileges that a container has not; programs started later cannot regain them."""
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    capabilities.restrict(capabilities.CONTAINER_MASK)
    hide_from_guest()
    machine = os.uname().machine
    if seccomp.supports(machine):
        kernel.set_seccomp_filter(seccomp.container_filter(machine))
