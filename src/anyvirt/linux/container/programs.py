"""Starting a program inside the container: found along PATH there, failures told as a shell would."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, TypeVar

from anyvirt.linux.container.stages import Fault, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.linux.container.specification import ProgramSpecification

Result = TypeVar("Result")

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def enter_workdir(program: ProgramSpecification) -> None:
    """Go to the program's working directory. Raises StartError."""
    try:
        os.chdir(program.workdir)
    except OSError as error:
        if program.workdir_required:
            raise StartError(
                Fault.USAGE, f"the command cannot start in {program.workdir}: {error.strerror}"
            ) from error
        os.chdir("/")


def start_program(
    program: ProgramSpecification, start: Callable[[str, tuple[str, ...], dict[str, str]], Result]
) -> Result:
    """Call `start` with each path that the command's name can mean until one can be executed.

    Raises StartError as execvp(3) would fail.
    """
    name = program.command[0]
    environment = dict(program.environment)
    failure: OSError | None = None
    for path in _candidates(name, environment.get("PATH", _DEFAULT_PATH)):
        try:
            return start(path, program.command, environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise _explain(name, error) from error
            if error.errno == errno.EACCES or os.path.exists(path):
                failure = error
    if failure is not None:
        raise _explain(name, failure) from failure
    raise StartError(
        Fault.NOT_FOUND,
        f"{name}: no such file in the container"
        if "/" in name
        else f"{name}: command not found in the container; PATH is {environment.get('PATH', _DEFAULT_PATH)}",
    )


def processes_exhausted(name: str) -> StartError:
    """The failure of a program for which the limit on processes leaves no room."""
    return StartError(
        Fault.HOST, f"{name} cannot be started: the limit on the number of processes is reached"
    )


def _candidates(name: str, search: str) -> Iterator[str]:
    if "/" in name:
        yield name
        return
    for directory in search.split(":"):
        yield os.path.join(directory or ".", name)


def _explain(name: str, error: OSError) -> StartError:
    if error.errno == errno.EAGAIN:
        return processes_exhausted(name)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return StartError(
            Fault.NOT_FOUND,
            f"{name} cannot be executed: its interpreter or dynamic linker does not exist in the container",
        )
    return StartError(Fault.NOT_EXECUTABLE, f"{name} cannot be executed: {error.strerror}")
