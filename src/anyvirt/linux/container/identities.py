"""Whose privileges stand behind the container's root: the four ways to map its user and group ids."""

from __future__ import annotations

import os
import zlib
from enum import StrEnum

from anyvirt.linux import kernel

COUNT = 65536
_FIRST_RANGE = 0x80000
_LAST_RANGE = 0x6FFF0000


class Identities(StrEnum):
    """How ids in the container relate to ids on the host."""

    MAPPED = "ids mapped to unused ones of the host, file owners mapped back by the mounts"
    """Started by root; the container's root is nobody on the host. Needs id-mapped mounts (Linux 5.19)."""
    PLAIN = "the host's ids"
    """Started by root where the file system cannot map owners: root with few capabilities."""
    SUBORDINATE = "root is the caller, other ids are the caller's subordinate ones"
    """Started by a user with newuidmap(1) and a range in /etc/subuid."""
    SINGLE = "root is the caller, and there are no other ids"
    """Started by a user without a range."""

    @property
    def user_namespace(self) -> bool:
        """Whether the container has a user namespace of its own."""
        return self is not Identities.PLAIN

    @property
    def privileged(self) -> bool:
        """Whether the host side may do as root does."""
        return self in (Identities.MAPPED, Identities.PLAIN)

    @property
    def many(self) -> bool:
        """Whether the container has more than one user."""
        return self is not Identities.SINGLE


def choose_identities() -> Identities:
    """The safest mapping that this process can hope to get; `PLAIN` is what is left when MAPPED fails."""
    if _commands_mounts():
        return Identities.MAPPED
    return Identities.SUBORDINATE if _subordinate_ranges() else Identities.SINGLE


def _commands_mounts() -> bool:
    """Whether this process may do with the host's mounts as it likes, which root in a container may not."""
    try:
        os.close(kernel.clone_tree("/"))
    except OSError:
        return False
    return True


def write_maps(pid: int, identities: Identities, identifier: str) -> None:
    """Map the ids of the new user namespace of process `pid` (user_namespaces(7)).

    Raises OSError naming the file that refused, or the program that failed.
    """
    if identities is Identities.MAPPED:
        base = range_of(identifier)
        for name in ("uid_map", "gid_map"):
            _write(pid, name, f"0 {base} {COUNT}")
    elif identities is Identities.SINGLE:
        _write(pid, "uid_map", f"0 {os.geteuid()} 1")
        _write(pid, "setgroups", "deny")
        _write(pid, "gid_map", f"0 {os.getegid()} 1")
    elif identities is Identities.SUBORDINATE:
        ranges = _subordinate_ranges()
        for program, own in (("newuidmap", os.geteuid()), ("newgidmap", os.getegid())):
            first, count = ranges[program]
            _run(program, str(pid), "0", str(own), "1", "1", str(first), str(count))


def range_of(identifier: str) -> int:
    """The first host id of an instance's own range, among those set aside for containers.

    The ranges are those of systemd's table (UIDS-GIDS.md, "container UID range").
    """
    places = (_LAST_RANGE - _FIRST_RANGE) // COUNT
    return _FIRST_RANGE + zlib.crc32(identifier.encode()) % places * COUNT


def _subordinate_ranges() -> dict[str, tuple[int, int]]:
    """The caller's ranges of user and group ids by the program that maps them; none unless both are there."""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = ""
    ranges = {}
    for program, path in (("newuidmap", "/etc/subuid"), ("newgidmap", "/etc/subgid")):
        found = _read_range(path, {name, str(os.geteuid())})
        if found is None or not _find_program(program):
            return {}
        ranges[program] = found
    return ranges


def _read_range(path: str, owners: set[str]) -> tuple[int, int] | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                owner, *numbers = line.strip().split(":")
                if owner in owners and len(numbers) == 2 and all(number.isdigit() for number in numbers):
                    first, count = map(int, numbers)
                    if count > 0:
                        return first, min(count, COUNT - 1)
    except OSError:
        return None
    return None


def _find_program(name: str) -> str | None:
    for directory in ("/usr/bin", "/bin", "/usr/local/bin"):
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    return None


def _run(program: str, *arguments: str) -> None:
    path = _find_program(program) or program
    pid = os.posix_spawn(path, (program, *arguments), {})
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(1, f"it ended with status {os.waitstatus_to_exitcode(status)}", program)


def _write(pid: int, name: str, text: str) -> None:
    with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
        file.write(text)
