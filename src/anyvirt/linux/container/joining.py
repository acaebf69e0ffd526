"""A further program in a running container: a process of the host that joins its namespaces, step by step.

A joiner joins, and clones the program's process into the container; then only that process remains, as a
child of the keeper. Reports to the keeper are packets: `P` the process's number with its terminal, `E` a
failure; the end of the reports without one means that the program runs.
"""

from __future__ import annotations

import _socket
import array
import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from anyvirt.linux import kernel
from anyvirt.linux.container import stages
from anyvirt.linux.container.confinement import confine, hide_from_guest, stop_importing
from anyvirt.linux.container.init import close_others
from anyvirt.linux.container.programs import enter_workdir, processes_exhausted, start_program
from anyvirt.linux.container.signal_masks import block_all, reset_all, unblock_all
from anyvirt.linux.container.stages import Fault, Stage, StartError
from anyvirt.linux.container.terminals import open_terminal

if TYPE_CHECKING:
    from anyvirt.linux.container.identities import Identities
    from anyvirt.linux.container.specification import ProgramSpecification

PROCESS_REPORT = struct.Struct("=i")
_NAMESPACE_FILES = {
    "user": kernel.CLONE_NEWUSER,
    "mnt": kernel.CLONE_NEWNS,
    "pid": kernel.CLONE_NEWPID,
    "uts": kernel.CLONE_NEWUTS,
    "ipc": kernel.CLONE_NEWIPC,
    "net": kernel.CLONE_NEWNET,
}


def open_namespaces(pid: int) -> tuple[tuple[int, int], ...]:
    """The namespaces of process `pid`, as files with their kinds in the order in which to join them.

    An ordinary user must open them before the process hides from the guest, and so from its own user too.
    """
    return tuple(
        (os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY), kind) for name, kind in _NAMESPACE_FILES.items()
    )


def all_namespaces(pidfd: int, identities: Identities) -> tuple[tuple[int, int], ...]:
    """The namespaces of the process that `pidfd` refers to, for root, who may join them all at once."""
    kinds = kernel.CLONE_NEWCGROUP
    for kind in _NAMESPACE_FILES.values():
        kinds |= kind
    return ((pidfd, kinds if identities.user_namespace else kinds & ~kernel.CLONE_NEWUSER),)


class Visit(NamedTuple):
    """What the joiner finds prepared. It was cloned into the control group, where that is possible."""

    program: ProgramSpecification
    identities: Identities
    namespaces: tuple[tuple[int, int], ...]
    """Files that stand for namespaces to join, each with the kinds of namespaces to join through it."""
    reports: int
    streams: tuple[int, ...]
    group_files: tuple[int, ...]

    @property
    def fds(self) -> set[int]:
        """All file descriptors that the joiner needs."""
        return {*(fd for fd, _ in self.namespaces), self.reports, *self.streams, *self.group_files}


def run(visit: Visit) -> NoReturn:
    """Be the joiner."""
    reports = _socket.socket(fileno=visit.reports)
    try:
        block_all()
        close_others(visit.fds)
        stop_importing()
        try:
            _enter(visit)
            _start(visit, reports)
        except OSError as error:
            raise stages.describe(error) from error
    except StartError as error:
        reports.send(b"E" + stages.encode(error))
    except BaseException as error:
        text = f"cannot {stages.current}: {type(error).__name__}: {error}"
        reports.send(b"E" + stages.encode(StartError(Fault.HOST, text, stages.current)))
    finally:
        os._exit(0)


def _enter(visit: Visit) -> None:
    stages.enter(Stage.JOIN)
    for fd in visit.group_files:
        os.write(fd, b"0")
    hide_from_guest()
    for fd, kinds in visit.namespaces:
        kernel.setns(fd, kinds)
    if visit.identities.many:
        os.setgroups([])
    if visit.identities.user_namespace:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    hide_from_guest()
    os.umask(0o022)


def _start(visit: Visit, reports: _socket.socket) -> None:
    terminal = None
    if visit.program.terminal is not None:
        stages.enter(Stage.TERMINAL)
        terminal = open_terminal(*visit.program.terminal)
    stages.enter(Stage.COMMAND)
    try:
        pid, _ = kernel.clone3(kernel.CLONE_PARENT)
    except BlockingIOError as error:
        raise processes_exhausted(visit.program.command[0]) from error
    if pid:
        controller = array.array("i", terminal[:1] if terminal else ())
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, controller)] if terminal else []
        reports.sendmsg([b"P" + PROCESS_REPORT.pack(pid)], rights)
        return
    _become(visit, terminal[1] if terminal else None)


def _become(visit: Visit, terminal: str | None) -> NoReturn:
    """Be the program's process."""
    os.setsid()
    if terminal is not None:
        line = os.open(terminal, os.O_RDWR)
        fcntl.ioctl(line, termios.TIOCSCTTY, 0)
        streams: tuple[int, ...] = (line, line, line)
    else:
        streams = visit.streams
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    stages.enter(Stage.WORKDIR)
    enter_workdir(visit.program)
    stages.enter(Stage.CONFINEMENT)
    confine()
    stages.enter(Stage.COMMAND)
    reset_all()
    unblock_all()
    start_program(visit.program, os.execve)
    raise AssertionError("execve returned")
