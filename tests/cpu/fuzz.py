"""Runs hostile programs in every tier: `python -m tests.cpu.fuzz [--seconds N] [--first SEED] [--case SEED]`.

No guest may crash this process, hang it, or touch memory that is not its own; after the same number of
instructions every tier has to be in the reference executor's state. A worker process runs the cases; this
one watches it, kills it when a case takes too long, and prints what it found with the seed of the case:
`--case SEED` runs that one again here, and shows its code.
"""

import argparse
import ctypes
import json
import mmap
import os
import selectors
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from anyvirt.cpu import memory as guest_memory
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.memory import FlatMemory, Protection, host_mmap
from anyvirt.cpu.reference import ReferenceExecutor

from .fuzz_cases import PAGE, Kind, listing, make_case
from .machines import MEMORIES
from .tiers import EXECUTORS, NAMES, guest

CHECKOUT = Path(__file__).resolve().parents[2]
CASE_TIMEOUT, STARTED_WITHIN = 30.0, 300.0
"""Seconds after which a case hangs, and for what the tiers compile for themselves before."""
FREE_RUN = 0.004
"""Seconds after which a run without a budget is interrupted."""
INTERRUPTED_WITHIN = 5.0
SEGMENTS, RESUMES = 4, 8
"""How often the budgets of a case are given, and how often a run without one is continued."""
_FIXED_NOREPLACE = 0x100000
_CANARY_SIZE = 1 << 16
_CANARY = bytes(range(256)) * (_CANARY_SIZE // 256)


class Finding(AssertionError):
    """Something that must not happen, in one sentence."""


class Canaries:
    """Memory around and between what belongs to guests, which nobody may change."""

    def __init__(self):
        self._places = []

    def plant(self, address=0):
        """Map one, at `address` if nothing is there."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (_FIXED_NOREPLACE if address else 0)
        try:
            place = host_mmap(address, _CANARY_SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags)
        except FileExistsError:
            return
        ctypes.memmove(place, _CANARY, _CANARY_SIZE)
        self._places.append(place)

    def surround(self, memory):
        """Plant one at either side of everything that a guest's memory consists of."""
        if isinstance(memory, FlatMemory):
            guard = guest_memory.GUARD_SIZE
            ranges = [(memory.base - guard, memory.base + memory.size + guard)]
        else:
            banks = [region.bank for region in memory.regions]
            ranges = [(bank.host, bank.host + bank.size) for bank in banks]
        for start, end in ranges:
            self.plant(start - _CANARY_SIZE)
            self.plant(end)

    def check(self):
        """Raise a Finding if one has changed."""
        for place in self._places:
            if ctypes.string_at(place, _CANARY_SIZE) != _CANARY:
                raise Finding(f"memory of the host at {place:#x} was changed")

    def pull(self):
        """Unmap all."""
        for place in self._places:
            guest_memory.host_munmap(place, _CANARY_SIZE)
        self._places.clear()


class Subject:
    """An executor in the state of a case; `tier` None is the reference executor."""

    def __init__(self, tier, kind, case):
        self.name = f"{tier}-{kind}"
        self._case = case
        self.memory = FlatMemory(case.size) if kind == "flat" else MEMORIES[kind]()
        for part in case.mapped:
            self.memory.map(part.start, PAGE, Protection.READ | Protection.WRITE)
            self.memory.write(part.start, part.content)
            self.memory.protect(part.start, PAGE, part.protection)
        if tier is None:
            self.cpu = ReferenceExecutor("riscv64", self.memory)
        else:
            self.cpu = guest.make_executor(tier, self.memory)
        self.cpu.x[:] = case.x
        self.cpu.f[:] = case.f
        self.cpu.fcsr = case.fcsr
        self.cpu.pc = case.pc

    def outcome(self, stop):
        """Everything that the guest could see."""
        return {
            "stop": stop,
            "pc": self.cpu.pc,
            "instructions": self.cpu.instructions,
            "x": [hex(value) for value in self.cpu.x],
            "f": [hex(value) for value in self.cpu.f],
            "fcsr": self.cpu.fcsr,
            "memory": self._contents(),
        }

    def _contents(self):
        return {hex(part.start): self._page(part) for part in self._case.mapped if part.protection}

    def _page(self, part):
        """What is in a page; one that can only be executed is as it was, as far as anybody can tell."""
        try:
            return self.memory.read(part.start, PAGE)
        except guest_memory.GuestFault:
            return part.content

    def resume(self, stop):
        """Go on after a stop, behind the instruction that caused it; whether there is one."""
        if stop.reason in (StopReason.SYSTEM_CALL, StopReason.BREAKPOINT):
            self.cpu.pc = stop.next_pc
        elif stop.reason not in (StopReason.BUDGET, StopReason.INTERRUPTED):
            if stop.reason == StopReason.ACCESS_FAULT and stop.is_fetch_failure:
                return False
            (page,) = (self._page(part) for part in self._case.mapped if 0 <= stop.pc - part.start < PAGE)
            self.cpu.pc = stop.pc + (4 if page[stop.pc % PAGE] & 3 == 3 else 2)
        return True

    def check_protected(self):
        """Raise a Finding if memory that the guest may not write has changed."""
        for part in self._case.mapped:
            if part.protection & Protection.WRITE or not part.protection:
                continue
            if self._page(part) != part.content:
                raise Finding(
                    f"{self.name}: memory at {part.start:#x} was written in spite of {part.protection}"
                )


class StaleCode:
    """Notices when the reference executes code that was changed after the last fence.i.

    What happens then is not defined (unprivileged manual, "Zifencei"), so nothing is comparable any more.
    """

    def __init__(self, reference):
        self._memory = reference.memory
        self._write, self._fetch = self._memory.write, self._memory.fetch
        self._changed = set()
        self.was_executed = False
        self._memory.write, self._memory.fetch = self._noting_write, self._noting_fetch
        reference.cpu._processor.synchronize_code = self._changed.clear

    def _noting_write(self, address, data):
        self._write(address, data)
        self._changed.update(range(address, address + len(data)))

    def _noting_fetch(self, address, length):
        if not self._changed.isdisjoint(range(address, address + length)):
            self.was_executed = True
        return self._fetch(address, length)


def run_case(case, executors, canaries, *, translate=False):
    """Run a case in these pairs of tier and memory. Returns the reasons of its stops. Raises Finding."""
    reasons = Counter()
    if case.kind.is_comparable:
        for kind in sorted({kind for _, kind in executors}):
            tiers = [tier for tier, own in executors if own == kind]
            reasons += _compare(case, tiers, kind, canaries, translate=translate)
    for tier, kind in executors:
        reasons += _run_free(Subject(tier, kind, case), case, canaries, translate=translate)
    return reasons


def _compare(case, tiers, kind, canaries, *, translate):
    """Every tier is in the reference's state after each of the case's budgets."""
    reference = Subject(None, kind, case)
    stale = StaleCode(reference)
    subjects = []
    for tier in tiers:
        subjects.append(Subject(tier, kind, case))
        canaries.surround(subjects[-1].memory)
        if translate:
            _translate(subjects[-1], case, counted=True)
    reasons = Counter()
    for budget in case.budgets * SEGMENTS:
        stop = reference.cpu.run(budget)
        if stale.was_executed:
            break
        expected = reference.outcome(stop)
        reasons[stop.reason.name] += 1
        for subject in subjects:
            _demand_equal(subject, expected, subject.outcome(subject.cpu.run(budget)), budget)
        resumed = [subject.resume(stop) for subject in (reference, *subjects)]
        if not all(resumed):
            break
    for subject in subjects:
        subject.check_protected()
    canaries.check()
    return reasons


def _demand_equal(subject, expected, actual, budget):
    different = [name for name in expected if expected[name] != actual[name]]
    if different:
        shown = "; ".join(f"{name}: {_difference(expected[name], actual[name])}" for name in different)
        raise Finding(f"{subject.name}: another state than the reference's after {budget}: {shown}")


def _difference(expected, actual):
    if isinstance(expected, list):
        pairs = enumerate(zip(expected, actual, strict=True))
        return ", ".join(f"[{index}] {a} is {b}" for index, (a, b) in pairs if a != b)
    if isinstance(expected, dict):
        return ", ".join(
            f"{place}+{offset:#x}"
            for place in expected
            for offset in range(PAGE)
            if expected[place][offset] != actual[place][offset]
        )[:200]
    return f"{expected} is {actual}"


def _run_free(subject, case, canaries, *, translate):
    """Without a budget a run ends by itself or when it is interrupted."""
    canaries.surround(subject.memory)
    if translate:
        _translate(subject, case, counted=False)
    reasons = Counter()
    for _ in range(RESUMES):
        timer = threading.Timer(FREE_RUN, subject.cpu.interrupt)
        timer.start()
        begin = time.monotonic()
        stop = subject.cpu.run()
        seconds = time.monotonic() - begin
        timer.cancel()
        timer.join()
        reasons[stop.reason.name] += 1
        if seconds > INTERRUPTED_WITHIN:
            raise Finding(f"{subject.name}: interrupt() took {seconds:.1f} seconds")
        if stop.reason == StopReason.BUDGET:
            raise Finding(f"{subject.name}: a run without a budget ended for it")
        if stop.reason == StopReason.INTERRUPTED or not subject.resume(stop):
            break
    subject.check_protected()
    canaries.check()
    return reasons


def _translate(subject, case, *, counted):
    """Have a tier that can translate what it will run."""
    translate = getattr(subject.cpu, "translate", None)
    if translate is None:
        return
    for entry in case.entries:
        mapping = subject.memory.mapping_at(entry)
        if mapping is not None and mapping.protection & Protection.EXECUTE:
            translate(entry, counted=counted)


# The worker ---------------------------------------------------------------------------------------------


def work(seeds, kind, executors, *, translate):
    """Run the cases of these seeds, and say on standard output which is begun and what was found."""
    canaries, begin = Canaries(), time.monotonic()
    # What the tiers compile for themselves when they are first used is no part of any case.
    for tier, memory in executors:
        for budget in (1, None):
            Subject(tier, memory, make_case(0, Kind.NOISE)).cpu.run(budget)
    _say(ready=time.monotonic() - begin)
    for seed in seeds:
        _say(begin=seed)
        case = make_case(seed, kind)
        canaries.plant()
        try:
            reasons = run_case(case, executors, canaries, translate=translate)
            _say(end=seed, reasons=reasons)
        except Exception as error:
            _say(found=f"{type(error).__name__}: {error}", seed=seed)
        canaries.pull()


def _say(**words):
    print(json.dumps(words), flush=True)


# The watcher --------------------------------------------------------------------------------------------


class Watch:
    """Keeps a worker busy with seed after seed, for some time, and collects what is found."""

    def __init__(self, first, kind, executors, *, translate=False, timeout=CASE_TIMEOUT):
        self.seed = first
        self.cases = 0
        self.reasons = Counter()
        self.findings = {}
        """What was found, by seed."""
        self._words = [
            *("--executors", ",".join("-".join(pair) for pair in executors)),
            *(("--kind", kind) if kind else ()),
            *(("--translate",) if translate else ()),
        ]
        self._timeout = timeout
        self._deadline = 0.0

    def run(self, seconds):
        """Run cases for so many seconds, not counting what workers need to start."""
        self._deadline = time.monotonic() + seconds
        while time.monotonic() < self._deadline:
            self._run_worker()

    def report(self):
        """A line for each thing that was found, with the seeds that show it."""
        seeds = defaultdict(list)
        for seed, finding in self.findings.items():
            seeds[finding].append(str(seed))
        return [f"{len(each)} times: {what}\n  seeds {' '.join(each[:10])}" for what, each in seeds.items()]

    def _run_worker(self):
        """Run cases until the deadline, or until the worker has died of one."""
        command = (sys.executable, "-m", "tests.cpu.fuzz", "--work", "--first", str(self.seed), *self._words)
        with subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as worker:
            running = None
            for message in self._messages(worker):
                if message is None:
                    self.findings[running] = f"it hung for {self._timeout} seconds"
                    break
                running = self._note(message)
            ended = worker.poll()
            worker.kill()
            errors = worker.stderr.read().decode(errors="replace").strip()
        if ended is not None and running is not None:
            self.findings[running] = f"the process ended with status {ended}: {errors[-400:]}"
        elif ended is not None and self.cases == 0:
            raise RuntimeError(f"no case could be run: {errors}")
        self.seed = self.seed if running is None else running + 1

    def _note(self, message):
        """Keep what the worker says; returns the seed that is running."""
        if "ready" in message:
            self._deadline += message["ready"]
            return None
        if "begin" in message:
            return message["begin"]
        self.cases += 1
        if "found" in message:
            self.findings[message["seed"]] = message["found"]
            self.seed = message["seed"] + 1
        else:
            self.reasons.update(message["reasons"])
            self.seed = message["end"] + 1
        return None

    def _messages(self, worker):
        """What the worker says until the deadline or its end; None if it says nothing for too long."""
        os.set_blocking(worker.stdout.fileno(), False)
        pending, begun = b"", False
        with selectors.DefaultSelector() as selector:
            selector.register(worker.stdout, selectors.EVENT_READ)
            while True:
                if not selector.select(self._timeout if begun else STARTED_WITHIN):
                    yield None
                    return
                begun = True
                read = worker.stdout.read()
                if not read:
                    worker.wait()
                    return
                *lines, pending = (pending + read).split(b"\n")
                for line in lines:
                    yield json.loads(line)
                    if time.monotonic() > self._deadline and b"begin" not in line:
                        return


def _executors(text):
    """The executors of these names. Raises ValueError."""
    return [EXECUTORS[NAMES.index(name)] for name in text.split(",")]


def _options():
    parser = argparse.ArgumentParser(
        prog="python -m tests.cpu.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--first", type=int, default=int.from_bytes(os.urandom(4), "little"), metavar="SEED")
    parser.add_argument("--case", type=int, metavar="SEED", help="run one case in this process and show it")
    parser.add_argument("--kind", type=Kind, choices=list(Kind), help="only such cases")
    parser.add_argument("--executors", type=_executors, default=EXECUTORS, help=",".join(NAMES))
    parser.add_argument("--translate", action="store_true", help="translate the code before it is run")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Fuzz for some time; the exit status is 1 if something was found."""
    options = _options()
    if options.work:
        seeds = range(options.first, options.first + (1 << 40))
        work(seeds, options.kind, options.executors, translate=options.translate)
    if options.case is not None:
        case = make_case(options.case, options.kind)
        print(f"{case.kind}, {case.size >> 20} MiB, pc {case.pc:#x}, budgets {case.budgets}\n{listing(case)}")
        print(dict(run_case(case, options.executors, Canaries(), translate=options.translate)))
        return
    watch = Watch(options.first, options.kind, options.executors, translate=options.translate)
    print(f"from seed {watch.seed}", flush=True)
    watch.run(options.seconds)
    print(f"{watch.cases} cases; stops: {dict(watch.reasons)}")
    for line in watch.report():
        print(line)
    sys.exit(1 if watch.findings else 0)


if __name__ == "__main__":
    main()
