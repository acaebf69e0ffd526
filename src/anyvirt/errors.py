"""Errors a user can cause or meet, each one sentence with the exit status a shell user expects."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses that are not the guest's own (POSIX shell, section 2.8.2; timeout(1))."""

    FAILURE = 1
    USAGE = 2
    TIMEOUT = 124
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    SIGNAL_BASE = 128


class AnyvirtError(Exception):
    """What went wrong, where, and what to do about it, in one sentence."""

    exit_code: int = ExitCode.FAILURE


class UsageError(AnyvirtError):
    """The request itself is wrong: an unknown engine, a nonsensical size, a missing directory."""

    exit_code = ExitCode.USAGE


class CommandNotFoundError(AnyvirtError):
    """The guest's command does not exist in the guest's root filesystem."""

    exit_code = ExitCode.NOT_FOUND


class NotExecutableError(AnyvirtError):
    """The guest's command exists but cannot be executed: a directory, a damaged ELF file, no permission."""

    exit_code = ExitCode.NOT_EXECUTABLE


class EngineUnavailableError(AnyvirtError):
    """The engine exists but does not work on this host; the message carries the reason and the remedy."""

    exit_code = ExitCode.USAGE


class UnsupportedError(AnyvirtError):
    """An engine was asked for what it cannot do.

    The message names the engine, the capability, the reason and, where there is one, an engine that can.
    """

    exit_code = ExitCode.USAGE

    def __init__(
        self, engine: str, capability: str, reason: str, *, alternatives: tuple[str, ...] = ()
    ) -> None:
        hint = f"; {' or '.join(alternatives)} can" if alternatives else ""
        super().__init__(f"engine {engine} has no {capability}: {reason}{hint}")
        self.engine = engine
        self.capability = capability
        self.reason = reason
        self.alternatives = alternatives


class GuestTimeoutError(AnyvirtError):
    """The guest ran longer than it was given and was killed."""

    exit_code = ExitCode.TIMEOUT


class GuestStartError(AnyvirtError):
    """The host refused something that starting the guest needs (a namespace, a mount, a cgroup)."""
