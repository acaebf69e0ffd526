"""The last step before foreign code runs: no way to gain privileges, few capabilities, filtered calls."""

from __future__ import annotations

import os

# os.wait4 needs this module too, and would import it when first called, which in a container is too late.
import resource
import sys

from anyvirt.linux import capabilities, kernel, seccomp


def hide_from_guest() -> None:
    """Keep the guest from looking into this process, which still holds memory and files of the host.

    Without this, a guest's root could reach the host's Python through /proc/PID/exe (CVE-2019-5736). It must
    be called after every change of the process's ids, since that changes it back.
    """
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


_file_limits = (1024, 4096)


def prepare() -> None:
    """Compile the filter once, before the processes are forked that will use it.

    The keeper may also open as many files as root lets it: each container needs a few.
    """
    global _file_limits  # noqa: PLW0603 (a process has one limit)
    _file_limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_file_limits[1], _file_limits[1]))
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
    resource.setrlimit(resource.RLIMIT_NOFILE, _file_limits)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    capabilities.restrict(capabilities.CONTAINER_MASK)
    hide_from_guest()
    machine = os.uname().machine
    if seccomp.supports(machine):
        kernel.set_seccomp_filter(seccomp.container_filter(machine))
