"""System calls that mean the same to guest and host, so that the host's kernel serves them directly.

That holds where every structure behind a pointer has the same layout in both ABIs and contains no pointer
itself. A guest pointer becomes a host pointer by adding the base of the guest's memory; one that leads out
of the guest's address space is refused here, one that leads to unmapped pages by the kernel.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from anyvirt.linux.emulation.host import HOST
from anyvirt.linux.emulation.table import POINTERS, Kind, SystemCall, parse_signature

if TYPE_CHECKING:
    from collections.abc import MutableSequence

    from anyvirt.linux.emulation.process import Process
    from anyvirt.linux.emulation.table import Service

PASS_THROUGH = {
    # Files by descriptor
    "read": "fd buffer size",
    "write": "fd buffer size",
    "pread64": "fd buffer size size",
    "pwrite64": "fd buffer size size",
    "lseek": "fd size int",
    "close": "fd",
    "close_range": "int int flags",
    "dup": "fd",
    "dup3": "fd fd flags",
    "pipe2": "pointer flags",
    "fsync": "fd",
    "fdatasync": "fd",
    "sync": "",
    "syncfs": "fd",
    "sync_file_range": "fd size size flags",
    "flock": "fd int",
    "ftruncate": "fd size",
    "fallocate": "fd int size size",
    "fadvise64": "fd size size int",
    "readahead": "fd size size",
    "fchmod": "fd mode",
    "fchown": "fd int int",
    "fchdir": "fd",
    "fstatfs": "fd pointer",
    "getdents64": "fd buffer size",
    "sendfile": "fd fd pointer size",
    "splice": "fd pointer fd pointer size flags",
    "tee": "fd fd size flags",
    "copy_file_range": "fd pointer fd pointer size flags",
    "memfd_create": "path flags",
    # Files by name
    "getcwd": "buffer size",
    "chdir": "path",
    "chroot": "path",
    "mkdirat": "fd path mode",
    "mknodat": "fd path mode size",
    "unlinkat": "fd path flags",
    "symlinkat": "path fd path",
    "linkat": "fd path fd path flags",
    "renameat2": "fd path fd path flags",
    "truncate": "path size",
    "faccessat": "fd path mode",
    "faccessat2": "fd path mode flags",
    "fchmodat": "fd path mode",
    "fchmodat2": "fd path mode flags",
    "fchownat": "fd path int int flags",
    "utimensat": "fd path pointer flags",
    "statx": "fd path flags flags pointer",
    "statfs": "path pointer",
    "umask": "mode",
    "setxattr": "path path buffer size flags",
    "lsetxattr": "path path buffer size flags",
    "fsetxattr": "fd path buffer size flags",
    "getxattr": "path path buffer size",
    "lgetxattr": "path path buffer size",
    "fgetxattr": "fd path buffer size",
    "listxattr": "path buffer size",
    "llistxattr": "path buffer size",
    "flistxattr": "fd buffer size",
    "removexattr": "path path",
    "lremovexattr": "path path",
    "fremovexattr": "fd path",
    "name_to_handle_at": "fd path pointer pointer flags",
    "open_by_handle_at": "fd pointer flags",
    # Mounts
    "mount": "path path path size pointer",
    "umount2": "path flags",
    "pivot_root": "path path",
    "fsopen": "path flags",
    "fsconfig": "fd int path pointer int",
    "fsmount": "fd flags flags",
    "fspick": "fd path flags",
    "open_tree": "fd path flags",
    "move_mount": "fd path fd path flags",
    "mount_setattr": "fd path flags pointer size",
    "swapon": "path flags",
    "swapoff": "path",
    "quotactl": "flags path int pointer",
    # Waiting for events
    "eventfd2": "int flags",
    "epoll_create1": "flags",
    "inotify_init1": "flags",
    "inotify_add_watch": "fd path flags",
    "inotify_rm_watch": "fd int",
    "timerfd_create": "int flags",
    "timerfd_settime": "fd flags pointer pointer",
    "timerfd_gettime": "fd pointer",
    # Time
    "nanosleep": "pointer pointer",
    "clock_nanosleep": "int flags pointer pointer",
    "clock_gettime": "int pointer",
    "clock_getres": "int pointer",
    "clock_settime": "int pointer",
    "clock_adjtime": "int pointer",
    "gettimeofday": "pointer pointer",
    "settimeofday": "pointer pointer",
    "adjtimex": "pointer",
    "getitimer": "int pointer",
    "setitimer": "int pointer pointer",
    "timer_create": "int pointer pointer",
    "timer_gettime": "int pointer",
    "timer_settime": "int flags pointer pointer",
    "timer_getoverrun": "int",
    "timer_delete": "int",
    "times": "pointer",
    # Processes
    "getpid": "",
    "getppid": "",
    "gettid": "",
    "getpgid": "int",
    "setpgid": "int int",
    "getsid": "int",
    "setsid": "",
    "wait4": "int pointer flags pointer",
    "waitid": "int int pointer flags pointer",
    "rt_sigqueueinfo": "int signal pointer",
    "rt_tgsigqueueinfo": "int int signal pointer",
    "pidfd_open": "int flags",
    "pidfd_send_signal": "fd signal pointer flags",
    "pidfd_getfd": "fd fd flags",
    "getrusage": "int pointer",
    "getpriority": "int int",
    "setpriority": "int int int",
    "ioprio_get": "int int",
    "ioprio_set": "int int int",
    "unshare": "flags",
    "setns": "fd flags",
    "sched_yield": "",
    "sched_setparam": "int pointer",
    "sched_getparam": "int pointer",
    "sched_setscheduler": "int int pointer",
    "sched_getscheduler": "int",
    "sched_get_priority_max": "int",
    "sched_get_priority_min": "int",
    "sched_rr_get_interval": "int pointer",
    "sched_setaffinity": "int size pointer",
    "sched_getaffinity": "int size pointer",
    "sched_setattr": "int pointer flags",
    "sched_getattr": "int pointer flags flags",
    "getcpu": "pointer pointer pointer",
    "membarrier": "int flags int",
    # Identity
    "getuid": "",
    "geteuid": "",
    "getgid": "",
    "getegid": "",
    "getresuid": "pointer pointer pointer",
    "getresgid": "pointer pointer pointer",
    "setuid": "int",
    "setgid": "int",
    "setreuid": "int int",
    "setregid": "int int",
    "setresuid": "int int int",
    "setresgid": "int int int",
    "setfsuid": "int",
    "setfsgid": "int",
    "getgroups": "int pointer",
    "setgroups": "int pointer",
    "capget": "pointer pointer",
    "capset": "pointer pointer",
    # The system
    "sysinfo": "pointer",
    "sethostname": "buffer size",
    "setdomainname": "buffer size",
    "syslog": "int buffer size",
    "getrandom": "buffer size flags",
    "vhangup": "",
    "acct": "path",
    "reboot": "flags flags flags pointer",
    "landlock_create_ruleset": "buffer size flags",
    "landlock_add_rule": "fd int pointer flags",
    "landlock_restrict_self": "fd flags",
    # Sockets
    "socket": "int int int",
    "socketpair": "int int int pointer",
    "bind": "fd pointer int",
    "listen": "fd int",
    "accept": "fd pointer pointer",
    "accept4": "fd pointer pointer flags",
    "connect": "fd pointer int",
    "getsockname": "fd pointer pointer",
    "getpeername": "fd pointer pointer",
    "sendto": "fd buffer size flags pointer int",
    "recvfrom": "fd buffer size flags pointer pointer",
    "shutdown": "fd int",
    # POSIX message queues
    "mq_open": "path flags mode pointer",
    "mq_unlink": "path",
    "mq_timedsend": "fd buffer size int pointer",
    "mq_timedreceive": "fd buffer size pointer pointer",
    "mq_getsetattr": "fd pointer pointer",
}

RESTARTED = frozenset(
    (
        "read", "write", "close", "flock", "wait4", "waitid", "accept", "accept4", "connect", "sendto",
        "recvfrom", "sendfile", "splice", "tee", "copy_file_range", "getrandom", "fallocate", "mq_timedsend",
        "mq_timedreceive", "open_by_handle_at",
    )
)  # fmt: skip
"""Those that SA_RESTART restarts (signal(7), "Interruption of system calls and library functions")."""


def _forwarding(number: int, kinds: tuple[Kind, ...]) -> Service:
    """A service that makes the host's call. Registers beyond the call's arguments go along unread."""
    pointers = tuple(index for index, kind in enumerate(kinds) if kind in POINTERS)
    lengths = tuple(index for index, kind in enumerate(kinds) if kind is Kind.BUFFER)
    if not pointers:
        return lambda process, arguments: process.cpu.system_call(number, *arguments)

    def forward(process: Process, arguments: MutableSequence[int]) -> int:
        memory = process.memory
        size, base = memory.size, memory.base
        for index in lengths:
            if arguments[index] + arguments[index + 1] > size:
                return -errno.EFAULT
        for index in pointers:
            address = arguments[index]
            if address >= size:
                return -errno.EFAULT
            if address:
                arguments[index] = address + base
        return process.cpu.system_call(number, *arguments)

    return forward


def pass_through(name: str) -> SystemCall:
    """The system call `name`, one of PASS_THROUGH, as an entry of the table."""
    kinds = parse_signature(PASS_THROUGH[name])
    return SystemCall(name, kinds, _forwarding(HOST[name], kinds), "", True, name in RESTARTED)
