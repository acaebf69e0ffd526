"""What the caller asks the keeper for, as plain data that travels between processes."""

from __future__ import annotations

from typing import NamedTuple


class BindMount(NamedTuple):
    """A host path shown in the container."""

    source: str
    target: str
    read_only: bool


class ProgramSpecification(NamedTuple):
    """One program to run in a container."""

    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    workdir: str
    workdir_required: bool
    """Whether a missing `workdir` is an error, or the program starts in `/` instead."""
    terminal: tuple[int, int] | None
    """Rows and columns of the pseudo-terminal that the program gets instead of the given streams."""


class ContainerSpecification(NamedTuple):
    """One container to start."""

    identifier: str
    directory: str
    """The instance's own directory on the host, which exists."""
    rootfs: str
    """Host directory that lies under the container's root, `/` for the host's own."""
    hostname: str
    mounts: tuple[BindMount, ...]
    memory: int | None
    cpus: float | None
    pids: int | None

    @property
    def controllers(self) -> frozenset[str]:
        """The cgroup controllers that its limits need."""
        limits = {"memory": self.memory, "cpu": self.cpus, "pids": self.pids}
        return frozenset(controller for controller, limit in limits.items() if limit is not None)


def container_from_plain(fields: tuple[object, ...]) -> ContainerSpecification:
    """The specification whose fields `plain` gave."""
    specification = ContainerSpecification(*fields)  # type: ignore[arg-type]
    return specification._replace(mounts=tuple(BindMount(*mount) for mount in specification.mounts))


def program_from_plain(fields: tuple[object, ...]) -> ProgramSpecification:
    """The specification whose fields `plain` gave."""
    return ProgramSpecification(*fields)  # type: ignore[arg-type]


def plain(specification: ContainerSpecification | ProgramSpecification) -> tuple[object, ...]:
    """The fields as tuples only, which is what a channel can carry."""
    if isinstance(specification, ContainerSpecification):
        mounts: tuple[tuple[object, ...], ...] = tuple(tuple(mount) for mount in specification.mounts)
        return tuple(specification._replace(mounts=mounts))  # type: ignore[arg-type]
    return tuple(specification)
