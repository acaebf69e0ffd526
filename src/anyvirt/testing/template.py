"""Machines that have booted, kept to make copies of: booted once a run, or once for all runs.

A snapshot of what depends on no directory or disk of the user's is kept in the cache directory. It may be
deleted at any time; of very many the least recently used ones are.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.errors import AnyvirtError
from anyvirt.machines.machine import Machine
from anyvirt.monitor.build import VirtMachine
from anyvirt.paths import cache_directory
from anyvirt.testing.booted import boot, boot_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyvirt.boards.virt import VirtBoard
    from anyvirt.testing.booted import BootedKind
    from anyvirt.testing.machine_host import MachineHost

_FORMAT = 1
"""Raised when what is done to a machine that has booted changes."""
_MOST_KEPT = 8
_BOOTING_TIER = "auto"
"""A machine goes on in any tier, so it boots in the fastest."""


class Template:
    """A machine that stands where it has booted, and its copies."""

    def __init__(self, kind: BootedKind, *, use_kept: bool) -> None:
        """Boot it, or go on from a snapshot that was kept. Raises what `boot` raises."""
        self._order = replace(kind.order, tier=_BOOTING_TIER)
        self._kind = replace(kind, order=self._order)
        depends_on_user = not kind.has_busybox or kind.order.shares or kind.order.disks
        self._origin = self._kept() if use_kept and not depends_on_user else self._booted()

    def copy(self, kind: BootedKind) -> MachineHost:
        """A machine that nobody has used, of a kind that boots the same; it stands still."""
        origin = self._origin.machine

        def make(attach: Callable[[VirtBoard], object]) -> Machine:
            return origin.clone(tier=kind.order.tier, attach=attach)

        return kind.host(VirtMachine(kind.order, make, mac=self._origin.mac, is_copy=True))

    def close(self) -> None:
        """Let go of it; its copies have nothing to do with it."""
        self._origin.close()

    # ----------------------------------------------------------------------------------------------------

    def _booted(self) -> VirtMachine:
        host = boot(self._kind)
        host.leave()
        return host.built

    def _kept(self) -> VirtMachine:
        """From the cache directory, where one process boots it while others wait."""
        directory = cache_directory() / "booted"
        directory.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="anyvirt-") as scratch:
            place = directory / _key(self._kind, Path(scratch))
        with _alone(directory / f"{place.name}.lock"):
            if place.is_dir():
                with suppress(AnyvirtError):
                    return self._restored(place)
                # It is damaged, or of another version.
                shutil.rmtree(place, ignore_errors=True)
            booted = self._booted()
            with suppress(AnyvirtError):  # where it cannot be written there is none next time
                booted.machine.snapshot(place)
            _forget_oldest(directory)
            return booted

    def _restored(self, place: Path) -> VirtMachine:
        restored = VirtMachine(
            self._order, lambda attach: Machine.restore(place, attach=attach), is_copy=True
        )
        with suppress(OSError):
            os.utime(place)
        return restored


def _key(kind: BootedKind, scratch: Path) -> str:
    """All that a machine that has booted depends on, as a name."""
    kernel, initrd = boot_inputs(kind, scratch)
    status = kernel.stat()
    digest = hashlib.sha256(repr((_FORMAT, astuple(kind.order))).encode())
    digest.update(repr((str(kernel), status.st_size, status.st_mtime_ns)).encode())
    digest.update(initrd.read_bytes())
    return digest.hexdigest()[:32]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_oldest(directory: Path) -> None:
    kept = sorted((path for path in directory.iterdir() if path.is_dir()), key=_age, reverse=True)
    for path in kept[_MOST_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
