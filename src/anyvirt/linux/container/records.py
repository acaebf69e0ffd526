"""What is known on disk about each live instance, so that nothing of a dead one stays on the host.

An instance's directory holds one file, `record`: the directories of its control group, a line each after the
group's version. It is written before the group is made, and locked by the keeper for as long as the keeper
lives: a record that can be locked has lost its keeper. After a reboot nothing it names exists any more, so
it is not synced to disk.
"""

from __future__ import annotations

import fcntl
import os
import time

from anyvirt.linux.cgroups import ControlGroup, open_control_group

_RECORD = "record"
_NEW_RECORD = "record.new"
_PATIENCE = 5.0
_GRACE = 60.0


def write_record(directory: str, group: ControlGroup) -> int:
    """Make the instance's directory and its record; returns the open, locked file."""
    os.mkdir(directory, 0o755)
    temporary = f"{directory}/{_NEW_RECORD}"
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    version, directories = group.description
    os.write(fd, os.fsencode("\n".join((version, *directories))))
    os.rename(temporary, f"{directory}/{_RECORD}")
    return fd


def erase_record(directory: str) -> None:
    """Remove the instance's directory. A missing one is fine."""
    for name in (_RECORD, _NEW_RECORD):
        try:
            os.unlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return


def remove_abandoned(directory: str) -> None:
    """Clean up after an instance whose keeper was killed, waiting for the last of its processes."""
    deadline = time.monotonic() + _PATIENCE
    while not _clean(directory) and time.monotonic() < deadline:
        time.sleep(0.002)


def sweep(instances: str) -> None:
    """Clean up after every instance in the directory `instances` that has lost its keeper."""
    for entry in os.scandir(instances):
        if entry.is_dir(follow_symlinks=False):
            _clean(entry.path)


def _clean(directory: str) -> bool:
    """Remove what an abandoned instance left; False while a keeper still looks after it."""
    try:
        fd = os.open(f"{directory}/{_RECORD}", os.O_RDWR)
    except FileNotFoundError:
        return _clean_unrecorded(directory)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        version, *directories = os.fsdecode(os.read(fd, 1 << 16)).split("\n")
        open_control_group((version, tuple(directories))).remove()
        erase_record(directory)
    finally:
        os.close(fd)
    return True


def _clean_unrecorded(directory: str) -> bool:
    """A directory without a record is about to get one, unless it has been so for long."""
    try:
        if time.time() - os.stat(directory).st_mtime < _GRACE:
            return False
    except FileNotFoundError:
        return True
    erase_record(directory)
    return True
