"""The container's first process: sets the container up from inside, starts the command, and looks after it.

It reaps every orphan, passes signals on, and ends, with everything else in the container, when the command
ends. Its reports to the keeper are packets: `E` a failed start, `S` a started one with file descriptors,
`X` the command's end.
"""

from __future__ import annotations

import _socket
import array
import fcntl
import os
import select
import signal as signals
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from anyvirt.linux import kernel
from anyvirt.linux.container import layers, special_files, stages
from anyvirt.linux.container.confinement import confine, hide_from_guest, stop_importing
from anyvirt.linux.container.new_root import enter_scratch, pivot
from anyvirt.linux.container.programs import enter_workdir, start_program
from anyvirt.linux.container.signal_masks import ALL_SIGNALS, await_any, block_all
from anyvirt.linux.container.stages import Fault, Stage, StartError
from anyvirt.linux.container.terminals import open_terminal

if TYPE_CHECKING:
    from anyvirt.linux.container.identities import Identities
    from anyvirt.linux.container.specification import (
        BindMount,
        ContainerSpecification,
        ProgramSpecification,
    )

EXIT_REPORT = struct.Struct("=iddq")
_ENDING_SIGNALS = frozenset({signals.SIGTERM, signals.SIGINT, signals.SIGHUP, signals.SIGQUIT})
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


class Birth(NamedTuple):
    """What the new process finds prepared, besides its namespaces and its working directory.

    The working directory is the instance's own, over which the upper layers' filesystem is mounted.
    """

    specification: ContainerSpecification
    program: ProgramSpecification
    identities: Identities
    go: int
    """Pipe from which one byte arrives when the ids have been mapped."""
    reports: int
    """Packet socket to the keeper."""
    streams: tuple[int, ...]
    layers: list[layers.Layer]
    layer_trees: list[int | None]
    mount_trees: list[int]
    """Detached mounts of the layers and the shared host paths; empty where the container must open them."""
    group_files: tuple[int, ...]
    """Files to write `0` into, which joins the control groups."""
    group_views: dict[str, str]
    """See ControlGroup.views."""

    @property
    def fds(self) -> set[int]:
        """All file descriptors that the new process needs."""
        trees = {tree for tree in self.layer_trees if tree is not None}
        return {self.go, self.reports, *self.streams, *trees, *self.mount_trees, *self.group_files}


def run(birth: Birth) -> NoReturn:
    """Be the container's first process."""
    reports = None
    try:
        stages.enter(Stage.BIRTH)
        block_all()
        close_others(birth.fds)
        stop_importing()
        reports = _socket.socket(fileno=birth.reports)
        try:
            sights = _look_at_host(birth)
            _become_root(birth, reports)
            _share(_build_filesystem(birth, sights), birth.specification)
            _configure(birth.specification)
            command, started = _start(birth.program, birth.streams)
        except OSError as error:
            raise stages.describe(error) from error
        reports.sendmsg([b"S"], _rights(started))
        for fd in started:
            os.close(fd)
        _look_after(command, reports)
    except StartError as error:
        if reports is not None:
            reports.send(b"E" + stages.encode(error))
    except BaseException as error:
        if reports is not None:
            text = f"cannot {stages.current}: {type(error).__name__}: {error}"
            reports.send(b"E" + stages.encode(StartError(Fault.HOST, text, stages.current)))
    finally:
        os._exit(1)


def close_others(kept: set[int]) -> None:
    """Close everything inherited from the keeper: its other instances' files are not this one's business."""
    previous = 2
    for fd in sorted(kept):
        os.closerange(previous + 1, fd)
        previous = fd
    os.closerange(previous + 1, 1 << 20)


class _Sights(NamedTuple):
    """Detached mounts that can be had only while the host's filesystems are in sight."""

    kernel_filesystems: dict[str, int]
    devices: list[int]
    groups: dict[str, int]


def _look_at_host(birth: Birth) -> _Sights:
    """Do what needs no ids yet, while the keeper maps them."""
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    stages.enter(Stage.KERNEL_FILESYSTEMS)
    kernel_filesystems = special_files.open_kernel_filesystems()
    stages.enter(Stage.DEVICES)
    devices = special_files.clone_devices()
    groups = {name: kernel.clone_tree(path) for name, path in birth.group_views.items()}
    return _Sights(kernel_filesystems, devices, groups)


def _become_root(birth: Birth, reports: _socket.socket) -> None:
    stages.enter(Stage.INIT)
    if os.read(birth.go, 1) != b"g":
        os._exit(1)
    os.close(birth.go)
    if birth.identities.many:
        os.setgroups([])
    if birth.identities.user_namespace:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    hide_from_guest()
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signals.SIGKILL)
    _exit_if_orphan(reports)
    kernel.set_process_name("anyvirt-init")
    for fd in birth.group_files:
        os.write(fd, b"0")
        os.close(fd)
    kernel.unshare(kernel.CLONE_NEWCGROUP)
    os.umask(0)


def _exit_if_orphan(reports: _socket.socket) -> None:
    """A keeper that died before its death's signal was asked for will send none."""
    poll = select.poll()
    poll.register(reports.fileno(), 0)
    if poll.poll(0):
        os._exit(1)


def _build_filesystem(birth: Birth, sights: _Sights) -> list[int]:
    """Make the root and change to it; returns the trees of the shared host paths."""
    specification, identities = birth.specification, birth.identities
    stages.enter(Stage.LAYERS)
    trees, shared = birth.layer_trees, birth.mount_trees
    if not identities.privileged:
        trees = [layers.open_layer(layer) for layer in birth.layers]
        shared = open_mounts(specification.mounts)
    enter_scratch()
    mounts = layers.build_root(birth.layers, trees, in_user_namespace=identities.user_namespace)
    stages.enter(Stage.PIVOT)
    pivot(birth.layers, mounts)
    stages.enter(Stage.DEVICES)
    special_files.make_devices(sights.devices, tty_group=identities.many)
    stages.enter(Stage.KERNEL_FILESYSTEMS)
    special_files.attach_kernel_filesystems(sights.kernel_filesystems)
    special_files.attach_control_groups(sights.groups)
    if specification.rootfs == "/":
        run_directory = special_files.own_directory("/run")
        kernel.mount("tmpfs", run_directory, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    return shared


def open_mounts(mounts: tuple[BindMount, ...]) -> list[int]:
    """Detached mounts of the host paths that the container shares, with all that is mounted below them."""
    return [kernel.clone_tree(mount.source, recursive=True) for mount in mounts]


def _share(trees: list[int], specification: ContainerSpecification) -> None:
    stages.enter(Stage.MOUNTS)
    os.umask(0o022)
    for tree, mount in zip(trees, specification.mounts, strict=True):
        attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
        if mount.read_only:
            attributes |= kernel.MOUNT_ATTR_RDONLY
        kernel.set_mount_attributes(tree, attributes, recursive=True)
        _make_target(mount.target, directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        kernel.attach_tree(tree, mount.target)
        os.close(tree)


def _make_target(target: str, *, directory: bool) -> None:
    """Make the file or directory that a mount will cover, if the root filesystem has none there."""
    if any(target == own or target.startswith(f"{own}/") for own in ("/proc", "/sys")):
        raise StartError(Fault.USAGE, f"nothing can be mounted at {target}: that place is the kernel's")
    if not os.path.exists(target):
        if directory:
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT, 0o644))
    elif os.path.isdir(target) != directory:
        kinds = ("a directory", "a file") if directory else ("a file", "a directory")
        raise StartError(
            Fault.USAGE, f"{kinds[0]} of the host cannot be mounted at {target}, which is {kinds[1]}"
        )


def _configure(specification: ContainerSpecification) -> None:
    stages.enter(Stage.NETWORK)
    kernel.set_hostname(specification.hostname)
    loopback = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    name = struct.pack("16s", b"lo")
    (flags,) = struct.unpack_from("h", fcntl.ioctl(loopback, _SIOCGIFFLAGS, name + bytes(24)), 16)
    fcntl.ioctl(loopback, _SIOCSIFFLAGS, name + struct.pack("h22x", flags | _IFF_UP))
    loopback.close()


def _start(program: ProgramSpecification, streams: tuple[int, ...]) -> tuple[int | None, tuple[int, ...]]:
    """Start the command; returns its process and the descriptors to report: a pidfd and its terminal."""
    terminal: tuple[int, ...] = ()
    if program.terminal is not None:
        stages.enter(Stage.TERMINAL)
        controller, path = open_terminal(*program.terminal)
        special_files.make_console(path)
        terminal, actions = (controller,), _terminal_actions(path)
    else:
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)]
    stages.enter(Stage.WORKDIR)
    enter_workdir(program)
    stages.enter(Stage.CONFINEMENT)
    confine()
    if not program.command:
        return None, terminal
    stages.enter(Stage.COMMAND)

    def spawn(path: str, command: tuple[str, ...], environment: dict[str, str]) -> int:
        return os.posix_spawn(
            path,
            command,
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=ALL_SIGNALS,
        )

    pid = start_program(program, spawn)
    for fd in streams:
        os.close(fd)
    return pid, (os.pidfd_open(pid), *terminal)


def _terminal_actions(path: str) -> list[tuple[int, ...]]:
    """A session leader that opens a terminal as its first makes it the one that controls the session."""
    opened = (os.POSIX_SPAWN_OPEN, 0, path, os.O_RDWR, 0)
    return [opened, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]  # type: ignore[list-item]


def _rights(fds: tuple[int, ...]) -> list[tuple[int, int, array.array[int]]]:
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def _look_after(command: int | None, reports: _socket.socket) -> NoReturn:
    """Pass signals to the command and reap until it ends; without one, until a signal asks to end."""
    stages.enter(Stage.RUNNING)
    while True:
        _reap(command, reports)
        number = await_any()
        if number == signals.SIGCHLD:
            continue
        if command is not None:
            os.kill(command, number)
        elif number in _ENDING_SIGNALS:
            _end(reports, number, 0.0, 0.0, 0)


def _reap(command: int | None, reports: _socket.socket) -> None:
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == command:
            _end(reports, status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024)


def _end(reports: _socket.socket, status: int, user: float, system: float, peak: int) -> NoReturn:
    """Report how the command ended, and end the container with it."""
    reports.send(b"X" + EXIT_REPORT.pack(status, user, system, peak))
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
