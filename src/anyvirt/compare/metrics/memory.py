"""Memory of an idle instance: what the host has less while many of them wait, divided by their number.

Two views. The host's counters of memory in use (/proc/meminfo) see everything, the kernel's own structures
for the instances included, but also whatever else the host does meanwhile. The proportional set size (PSS in
/proc/PID/smaps_rollup) of this process and all its descendants knows only their own pages: those of the
instances and of what the engine keeps running for them. MemAvailable would not do: pages that the kernel
keeps ready for each CPU do not count as available, and they are what small instances are made of.
"""

from __future__ import annotations

import os
import re
import select
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.compare.guest_run import MeasurementError, complaint, error_output
from anyvirt.compare.processes import descendants
from anyvirt.compare.results import Group, Row, Unit
from anyvirt.compare.turns import Budget, cells, take_turns
from anyvirt.compare.workloads import FIRST_INSTRUCTION
from anyvirt.instance import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.compare.bench import Bench
    from anyvirt.engines.engine import Engine
    from anyvirt.guest import Guest

MOST_INSTANCES, LEAST_INSTANCES = 100, 8
_STARTING = 1.5
"""Seconds after which no further instance is started, beyond the least. Few are enough of heavy ones."""
FEWEST_INSTANCES, _PATIENCE = 1, 4.0
"""How many are enough after so many seconds: where each boots a kernel."""
BUDGET = Budget(most=5, least=2, seconds=6.0, patience=5.0)
_IN_USE = ("AnonPages", "Shmem", "Slab", "KernelStack", "PageTables", "SecPageTables", "Percpu")
"""Counters of /proc/meminfo that do not overlap and leave out the page cache of files."""
_HOW_MANY = f"{LEAST_INSTANCES} to {MOST_INSTANCES} instances (1 or 2 where they boot kernels)"
_SETTLE = 0.1
"""Seconds for the kernel to finish what starting and ending processes leaves to be done later."""


def measure_memory(
    bench: Bench,
    engines: Sequence[Engine],
    *,
    timeout: float,
    baseline: str | None,
    step: Callable[[Engine], None],
    budget: Budget = BUDGET,
) -> tuple[Row, Row]:
    """The rows of both views, taken together in each sample."""
    own: dict[str, list[float | None]] = {engine.name: [] for engine in engines}

    def sample(engine: Engine) -> float:
        guest = bench.guest(engine, FIRST_INSTRUCTION)
        used, proportional = memory_of_idle(engine, guest, timeout)
        own[engine.name].append(proportional)
        return used

    taken = take_turns(engines, sample, budget, step=step)
    both = {name: found if isinstance(found, str) else _known(own[name]) for name, found in taken.items()}
    return (
        Row(
            "idle-memory",
            "idle instance: host",
            Group.MEMORY,
            Unit.BYTES,
            f"increase of the host's memory in use ({', '.join(_IN_USE)} in /proc/meminfo) "
            f"while {_HOW_MANY} wait, divided by their number",
            cells(taken, baseline, paired=False),
        ),
        Row(
            "idle-pss",
            "idle instance: its processes",
            Group.MEMORY,
            Unit.BYTES,
            f"PSS of all their processes while {_HOW_MANY} wait, divided by their number",
            cells(both, baseline, paired=False),
        ),
    )


def _known(samples: Sequence[float | None]) -> tuple[float, ...] | str:
    known = tuple(sample for sample in samples if sample is not None)
    if len(known) == len(samples):
        return known
    return "the memory of the engine's processes may not be read by this user"


def memory_of_idle(engine: Engine, guest: Guest, timeout: float) -> tuple[float, float | None]:
    """Bytes of each of many idle instances: the host's memory, and PSS if that may be read.

    Raises MeasurementError.
    """
    with ExitStack() as stack:
        errors, read_errors = stack.enter_context(error_output())
        time.sleep(_SETTLE)
        before, proportional = memory_in_use(), proportional_memory(os.getpid())
        # The feed is closed before the instances are: they end by themselves.
        inputs, feed = os.pipe()
        stack.callback(os.close, inputs)
        count, began = 0, time.monotonic()
        while not _are_enough(count, time.monotonic() - began):
            count += 1
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            try:
                stack.enter_context(engine.start(guest, Streams(inputs, writer, errors)))
            finally:
                os.close(writer)
            if not _byte_comes(reader, timeout):
                raise MeasurementError(complaint("an idle instance did not come up", read_errors()))
        stack.callback(os.close, feed)
        time.sleep(_SETTLE)
        used = memory_in_use() - before
        later = proportional_memory(os.getpid())
        if proportional is None or later is None:
            return used / count, None
        return used / count, (later - proportional) / count


def _are_enough(count: int, seconds: float) -> bool:
    """Whether no further instance is to be started, after so many seconds."""
    if count >= LEAST_INSTANCES:
        return count >= MOST_INSTANCES or seconds >= _STARTING
    return count >= FEWEST_INSTANCES and seconds >= _PATIENCE


def _byte_comes(reader: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return bool(poll.poll(timeout * 1000)) and bool(os.read(reader, 1))


def memory_in_use() -> int:
    """Bytes of the host's memory that are neither free nor page cache."""
    with suppress(OSError):
        # Only root may: it adds up what each CPU has counted and not yet reported.
        Path("/proc/sys/vm/stat_refresh").read_bytes()
    counters = dict(re.findall(r"^(\w+):\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
    return sum(int(counters.get(name, 0)) for name in _IN_USE) * 1024


def proportional_memory(root: int) -> int | None:
    """Bytes of PSS, swapped ones included, of process `root` and all its descendants.

    Of `root` itself the pages of files do not count: their share changes with whatever else on the host maps
    the same libraries. None when the user may not read one of the processes.
    """
    others = descendants(root) - {root}
    try:
        return _pss(root, "Pss_Anon|Pss_Shmem") + sum(_pss(process, "Pss") for process in others)
    except PermissionError:
        return None


def _pss(process: int, parts: str) -> int:
    """Bytes of the named parts of one process, and swapped ones; 0 when it has ended meanwhile."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = re.findall(rf"^(?:{parts}|SwapPss):\s+(\d+) kB$", text, re.MULTILINE)
    return sum(map(int, sizes)) * 1024
