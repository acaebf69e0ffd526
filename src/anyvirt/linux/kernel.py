"""Linux system calls that Python's os module lacks, called through the C library.

The numbers of the newer calls are the same on every architecture (Documentation/process/adding-syscalls.rst).
Every function raises OSError with the path or the subject of the call as its filename.
"""

from __future__ import annotations

import ctypes
import os
import signal as signals
from ctypes import (
    POINTER,
    byref,
    c_char_p,
    c_int,
    c_long,
    c_uint,
    c_uint32,
    c_uint64,
    c_ulong,
    c_void_p,
    sizeof,
)
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_PARENT: Final = 0x00008000
_CLONE_PIDFD: Final = 0x00001000
_CLONE_INTO_CGROUP: Final = 0x200000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 0x2

MOUNT_ATTR_RDONLY: Final = 0x1
MOUNT_ATTR_NOSUID: Final = 0x2
MOUNT_ATTR_NODEV: Final = 0x4
MOUNT_ATTR_NOEXEC: Final = 0x8
MOUNT_ATTR_IDMAP: Final = 0x100000

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_OPEN_TREE_CLONE: Final = 0x1
_OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH: Final = 0x4
_MOVE_MOUNT_T_SYMLINKS: Final = 0x10
_MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
_FSOPEN_CLOEXEC: Final = 0x1
_FSMOUNT_CLOEXEC: Final = 0x1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_CAPABILITY_VERSION_3: Final = 0x20080522


class _CloneArguments(ctypes.Structure):
    """struct clone_args (clone(2))."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack",
            "stack_size", "tls", "set_tid", "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


class _MountAttributes(ctypes.Structure):
    """struct mount_attr (mount_setattr(2))."""

    _fields_ = [(name, c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _CapabilityHeader(ctypes.Structure):
    """struct __user_cap_header_struct (capset(2))."""

    _fields_ = [("version", c_uint32), ("pid", c_int)]


class _FilterProgram(ctypes.Structure):
    """struct sock_fprog (seccomp(2))."""

    _fields_ = [("length", ctypes.c_ushort), ("filter", c_void_p)]


_libc = ctypes.CDLL(None, use_errno=True)


def _function(name: str, *types: type[Any]) -> Callable[..., int]:
    function = _libc[name]
    function.restype = c_int
    function.argtypes = types
    return function


def _system_call(number: int, *types: type[Any]) -> Callable[..., int]:
    function = _libc["syscall"]
    function.restype = c_long
    function.argtypes = (c_long, *types)
    return partial(function, number)


_mount = _function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = _function("umount2", c_char_p, c_int)
_pivot_root = _function("pivot_root", c_char_p, c_char_p)
_setns = _function("setns", c_int, c_int)
_unshare = _function("unshare", c_int)
_prctl = _function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_capset = _function("capset", c_void_p, c_void_p)
_capget = _function("capget", c_void_p, c_void_p)
_sethostname = _function("sethostname", c_char_p, ctypes.c_size_t)
_open_tree = _system_call(428, c_int, c_char_p, c_uint)
_move_mount = _system_call(429, c_int, c_char_p, c_int, c_char_p, c_uint)
_fsopen = _system_call(430, c_char_p, c_uint)
_fsconfig = _system_call(431, c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = _system_call(432, c_int, c_uint, c_uint)
_clone3 = _system_call(435, POINTER(_CloneArguments), ctypes.c_size_t)
_mount_setattr = _system_call(442, c_int, c_char_p, c_uint, POINTER(_MountAttributes), ctypes.c_size_t)


def _checked(result: int, subject: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
    return result


def clone3(flags: int, *, cgroup: int | None = None) -> tuple[int, int]:
    """Fork into new namespaces (`CLONE_NEW*`), and into the cgroup v2 directory open as `cgroup`.

    Returns the child's process id and a pidfd of it; in the child both are 0. Python's and the C library's
    fork handlers do not run: the calling process must be single-threaded.
    """
    pidfd = c_int(0)
    arguments = _CloneArguments(
        flags=flags | _CLONE_PIDFD | (_CLONE_INTO_CGROUP if cgroup is not None else 0),
        pidfd=ctypes.addressof(pidfd),
        # A child made with CLONE_PARENT sends its new parent the signal that this process would send.
        exit_signal=0 if flags & CLONE_PARENT else signals.SIGCHLD,
        cgroup=cgroup or 0,
    )
    pid = _checked(_clone3(byref(arguments), sizeof(arguments)), "clone3")
    return (pid, pidfd.value) if pid else (0, 0)


def setns(fd: int, flags: int) -> None:
    """Join the namespaces `flags` of the process whose pidfd is `fd` (setns(2), Linux 5.8)."""
    _checked(_setns(fd, flags), "setns")


def unshare(flags: int) -> None:
    """Give this process new namespaces of its own (unshare(2))."""
    _checked(_unshare(flags), "unshare")


def prctl(option: int, *arguments: int) -> int:
    """Operate on this process (prctl(2)); missing arguments are 0."""
    return _checked(_prctl(option, *arguments, *(0,) * (4 - len(arguments))), "prctl")


def set_process_name(name: str) -> None:
    """Name this process in listings, in at most 15 bytes, instead of by the words of its command line.

    Those words are overwritten where they are, since every user, and a guest, can read them.
    """
    buffer = ctypes.create_string_buffer(name.encode())
    prctl(PR_SET_NAME, ctypes.addressof(buffer))
    start, end = _argument_area()
    ctypes.memmove(start, name.encode()[: end - start].ljust(end - start, b"\0"), end - start)


@cache
def _argument_area() -> tuple[int, int]:
    """Where this process's arguments lie in memory: fields 48 and 49 of /proc/self/stat (proc(5))."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[48 - 3]), int(fields[49 - 3])


def set_hostname(name: str) -> None:
    """Name the host of this UTS namespace (sethostname(2))."""
    data = os.fsencode(name)
    _checked(_sethostname(data, len(data)), name)


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, options: str = "") -> None:
    """Mount, bind or change a mount, as `flags` (`MS_*`) tell (mount(2))."""
    result = _mount(
        os.fsencode(source), os.fsencode(target), filesystem.encode() or None, flags, os.fsencode(options)
    )
    _checked(result, target)


def unmount(target: str, flags: int = 0) -> None:
    """Remove the topmost mount at `target` (umount2(2))."""
    _checked(_umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, old_root: str) -> None:
    """Make the mount `new_root` the root and put the old root at `old_root` (pivot_root(2))."""
    _checked(_pivot_root(os.fsencode(new_root), os.fsencode(old_root)), new_root)


def clone_tree(path: str, *, recursive: bool = False) -> int:
    """A detached copy of the mount at `path`, with the mounts below it if asked (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _checked(_open_tree(AT_FDCWD, os.fsencode(path), flags), path)


def attach_tree(tree: int, target: str) -> None:
    """Attach the detached mount `tree` at `target`, or over the working directory if that is empty."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (_MOVE_MOUNT_T_SYMLINKS if target else _MOVE_MOUNT_T_EMPTY_PATH)
    _checked(_move_mount(tree, b"", AT_FDCWD, os.fsencode(target), flags), target)


def new_filesystem(kind: str, options: dict[str, str | None], attributes: int = 0) -> int:
    """A detached mount of a new `kind` of filesystem (fsopen(2)); an option that is None is a flag."""
    context = _checked(_fsopen(kind.encode(), _FSOPEN_CLOEXEC), kind)
    try:
        for key, value in options.items():
            if value is None:
                result = _fsconfig(context, _FSCONFIG_SET_FLAG, key.encode(), None, 0)
            else:
                result = _fsconfig(context, _FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
            _checked(result, f"{kind} option {key}")
        _checked(_fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0), kind)
        return _checked(_fsmount(context, _FSMOUNT_CLOEXEC, attributes), kind)
    finally:
        os.close(context)


def set_mount_attributes(
    tree: int, attributes: int, *, recursive: bool = False, user_namespace: int | None = None
) -> None:
    """Set `MOUNT_ATTR_*` on a mount, with `user_namespace` mapping its file owners (mount_setattr(2))."""
    change = _MountAttributes(attr_set=attributes)
    if user_namespace is not None:
        change.attr_set |= MOUNT_ATTR_IDMAP
        change.userns_fd = user_namespace
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _checked(_mount_setattr(tree, b"", flags, byref(change), sizeof(change)), "mount attributes")


def get_capabilities() -> tuple[int, int, int]:
    """This process's effective, permitted and inheritable capabilities as bit masks (capget(2))."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    words = (c_uint32 * 6)()
    _checked(_capget(byref(header), byref(words)), "capget")
    effective, permitted, inheritable = (words[i] | words[i + 3] << 32 for i in range(3))
    return effective, permitted, inheritable


def set_capabilities(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set this process's capabilities (capset(2))."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    masks = (effective, permitted, inheritable)
    words = (c_uint32 * 6)(*(mask & 0xFFFFFFFF for mask in masks), *(mask >> 32 for mask in masks))
    _checked(_capset(byref(header), byref(words)), "capset")


def set_seccomp_filter(program: bytes) -> None:
    """Attach a BPF program (8-byte struct sock_filter each) to this process's system calls (seccomp(2))."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _FilterProgram(len(program) // 8, ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, 2, ctypes.addressof(header))
