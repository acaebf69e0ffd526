"""The stages of a container's start, by name, and the report that a failed one sends to the keeper."""

from __future__ import annotations

import os
from enum import StrEnum


class Stage(StrEnum):
    """What is being done; each is a place where a start can fail, or be killed."""

    RECORD = "record the instance"
    CONTROL_GROUP = "make the control group"
    SOURCES = "open the root filesystem and the mounts"
    CLONE = "make the namespaces"
    IDENTITIES = "map the user ids"
    BIRTH = "begin the container's first process"
    INIT = "become the container's root"
    LAYERS = "lay a writable layer over the root filesystem"
    PIVOT = "change the root"
    KERNEL_FILESYSTEMS = "mount /proc and /sys"
    DEVICES = "set up /dev"
    MOUNTS = "mount what the guest shares with the host"
    NETWORK = "set the host name and bring up loopback"
    TERMINAL = "open the terminal"
    WORKDIR = "enter the working directory"
    CONFINEMENT = "drop privileges"
    COMMAND = "start the command"
    JOIN = "join the container's namespaces"
    RUNNING = "run"
    REMOVAL = "remove what the instance held"


class Fault(StrEnum):
    """Which error of the caller's vocabulary a failure becomes."""

    USAGE = "usage"
    NOT_FOUND = "not found"
    NOT_EXECUTABLE = "not executable"
    LIMITS = "limits"
    HOST = "host"


class StartError(Exception):
    """A start failed; `str` is the sentence for the user."""

    def __init__(self, fault: Fault, text: str, stage: Stage | None = None) -> None:
        super().__init__(text)
        self.fault = fault
        self.stage = stage


current = Stage.RECORD


def enter(stage: Stage) -> None:
    """Note that this process now begins `stage`."""
    global current  # noqa: PLW0603 (a process is in one stage)
    current = stage


def describe(error: OSError) -> StartError:
    """The host's refusal of a system call, as the failure of the current stage."""
    subject = f" {os.fsdecode(error.filename)}" if error.filename else ""
    return StartError(Fault.HOST, f"cannot {current}:{subject}: {error.strerror}", current)


def encode(error: StartError) -> bytes:
    """The report of a failure, short enough for one packet."""
    stage = error.stage.name if error.stage else ""
    text = str(error).encode("utf-8", "surrogateescape")[:3000]
    return b"\0".join((error.fault.name.encode(), stage.encode(), text))


def decode(report: bytes) -> StartError:
    """The failure that `report` describes; whatever it holds, it becomes no more than text."""
    fault, stage, text = (*report.split(b"\0", 2), b"", b"")[:3]
    return StartError(
        Fault.__members__.get(fault.decode("ascii", "replace"), Fault.HOST),
        text.decode("utf-8", "surrogateescape") or "the container's set-up ended without a reason",
        Stage.__members__.get(stage.decode("ascii", "replace")),
    )
