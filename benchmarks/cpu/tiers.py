"""Speed of the CPU core's tiers against qemu-user and the host's own code, all measured in one run.

    python benchmarks/cpu/tiers.py [--bare | --whole] [--tiers T,...] [--memory M,...] [--states S,...]
                                   [--repeats N] [--heat S] [--scale F] [--json FILE] [PROGRAM...]

--bare (the default) runs the kernels on bare executors, which are heated for some time before runs are
counted. The time to start qemu and native processes is measured in the same turns and taken off theirs.
--whole runs kernels and real programs (zlib, bzip2, zstd, lz4, Lua, SQLite, Duktape) as whole processes of
the user engine, with its caches in each of these states: empty (nothing on disk), cold (the tiers' own
code, no translations), warm (the program has run before).

The contenders take turns. A ratio is made within a turn; every figure is the median over the turns, the
spread is (slowest - fastest) / median. "x qemu" is qemu's time divided by the contender's: above 1 the
contender is the faster. "/ native" is the contender's time divided by that of gcc -O2 on the host.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, field

from contenders import QEMU, STATES, BareExecutor, Command, UserEngine, count_instructions
from guest import MEMORIES, ROUNDS, TIERS, Program, executors
from processes import RunError
from programs import REAL_PROGRAMS, kernel_works, missing_compilers
from sources import PackageError

COUNTING_BUDGET = 1 << 62
REFERENCES = ("qemu", "native")


@dataclass
class Series:
    """The runs of one contender with one program."""

    first: float = 0.0
    """Seconds of the run that was not counted."""
    seconds: list = field(default_factory=list)
    processor: list = field(default_factory=list)
    """CPU time of all threads, user and system, in seconds."""

    @property
    def median(self):
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self):
        """(slowest - fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median

    def relative_to(self, other):
        """The median of the turns' ratios of time."""
        return statistics.median(own / base for own, base in zip(self.seconds, other.seconds, strict=True))


@dataclass
class Result:
    """All that was measured with one program."""

    name: str
    instructions: int
    same: bool
    series: dict

    def figures(self, contender):
        """MIPS, speed relative to qemu (None without it) and time relative to native code."""
        own, qemu = self.series[contender], self.series.get("qemu")
        return {
            "mips": self.instructions / own.median / 1e6,
            "times_qemu": 1 / own.relative_to(qemu) if qemu else None,
            "native_time": own.relative_to(self.series["native"]),
            "spread": own.spread,
        }


def measure(work, contenders, options, instructions):
    """Run every contender once, heat the bare executors, and then let all take turns."""
    series, outputs = {}, set()
    for contender in contenders:
        sample = contender.first(work)
        series[contender.name] = Series(sample.seconds)
        outputs.add(sample.output)
        if isinstance(contender, BareExecutor):
            contender.heat(work, options.heat)
    for turn in range(options.repeats):
        offset = turn % len(contenders)
        for contender in contenders[offset:] + contenders[:offset]:
            sample = contender.sample(work)
            outputs.add(sample.output)
            series[contender.name].seconds.append(sample.seconds)
            series[contender.name].processor.append(sample.user + sample.system)
    return Result(work.name, instructions, len(outputs) == 1, series)


def count_bare(work):
    """Instructions of a kernel, counted by the interpreter tier."""
    program = Program(work.riscv64, work.arguments)
    program.run(COUNTING_BUDGET)
    return program.cpu.instructions


# What is printed ----------------------------------------------------------------------------------------

WIDTH = 31


def print_heading(contenders, first):
    print(f"{first:18}{'million':>9}", *(f"{name:^{WIDTH}}" for name in contenders), sep=" ")
    columns = f"{'MIPS':>7}{'x qemu':>8}{'/ native':>9}{'spread':>7}"
    print(f"{'':18}{'instr.':>9}", *(columns for _ in contenders), sep=" ", flush=True)


def _cell(figures):
    qemu = f"{figures['times_qemu']:7.2f}x" if figures["times_qemu"] else f"{'-':>8}"
    return f"{figures['mips']:7.0f}{qemu}{figures['native_time']:8.2f}x{figures['spread']:7.0%}"


def print_result(result, contenders):
    cells = [_cell(result.figures(name)) for name in contenders]
    print(f"{result.name:18}{result.instructions / 1e6:9.0f}", *cells, end=" ")
    print("" if result.same else "OUTPUTS DIFFER", flush=True)


def summary(results, contenders):
    """For each contender: geometric means, and the worst programs."""
    table = {}
    for name in contenders:
        figures = {result.name: result.figures(name) for result in results}
        entry = {
            "mips": statistics.geometric_mean(one["mips"] for one in figures.values()),
            "native_time": statistics.geometric_mean(one["native_time"] for one in figures.values()),
            "median_spread": statistics.median(one["spread"] for one in figures.values()),
            "median_first": statistics.median(result.series[name].first for result in results),
        }
        if "qemu" in results[0].series:
            ratios = {program: one["times_qemu"] for program, one in figures.items()}
            slowest = min(ratios, key=ratios.get)
            entry |= {
                "times_qemu": statistics.geometric_mean(ratios.values()),
                "least_times_qemu": ratios[slowest],
                "least_program": slowest,
                "slower_than_qemu": sum(ratio < 1 for ratio in ratios.values()),
            }
        table[name] = entry
    return table


def print_summary(table, count):
    print(f"\ngeometric means of {count} programs")
    for name, entry in table.items():
        line = f"{name:22}{entry['mips']:7.0f} MIPS{entry['native_time']:8.2f}x native time"
        if "times_qemu" in entry:
            line += (
                f"{entry['times_qemu']:8.2f}x qemu, at least {entry['least_times_qemu']:.2f}x "
                f"({entry['least_program']}), {entry['slower_than_qemu']} programs slower"
            )
        print(line + f"; spread {entry['median_spread']:.0%}, first run {entry['median_first'] * 1e3:.0f} ms")


def print_processor_times(results, names):
    """How much CPU time each contender spent for a second on the clock: compilers run beside the guest."""
    print("\nCPU time of all threads / elapsed time, geometric mean")
    for name in names:
        shares = [
            statistics.median(
                cpu / elapsed
                for cpu, elapsed in zip(
                    result.series[name].processor, result.series[name].seconds, strict=True
                )
            )
            for result in results
        ]
        print(f"{name:22}{statistics.geometric_mean(max(share, 1e-3) for share in shares):6.2f}")


def as_json(results, table, options):
    return {
        "mode": "whole" if options.whole else "bare",
        "repeats": options.repeats,
        "scale": options.scale,
        "summary": table,
        "programs": {
            result.name: {
                "instructions": result.instructions,
                "same_output": result.same,
                "contenders": {
                    name: {"first": one.first, "seconds": one.seconds, "processor_seconds": one.processor}
                    for name, one in result.series.items()
                },
            }
            for result in results
        },
    }


# What is run --------------------------------------------------------------------------------------------


def bare_contenders(options):
    """The executors that there are, then qemu and native code."""
    chosen = [
        BareExecutor(tier, memory)
        for tier, memory in executors()
        if tier in options.tiers and memory in options.memory
    ]
    return chosen + references(without_start=True)


def whole_contenders(options, directory, nothing):
    """The user engine's tiers with each state of its caches, then qemu and native code."""
    engines = [
        UserEngine(tier, state, directory, nothing) for tier in options.tiers for state in options.states
    ]
    return engines + references(without_start=False)


def references(*, without_start):
    qemu = [Command("qemu", "riscv64", (QEMU,), without_start=without_start)] if QEMU else []
    return [*qemu, Command("native", "native", without_start=without_start)]


def works(options, directory):
    """The programs that were asked for; what cannot be had is said on standard error."""
    real = {program.name: program for program in REAL_PROGRAMS} if options.whole else {}
    names = options.programs or [*ROUNDS, *real]
    unknown = [name for name in names if name not in ROUNDS and name not in real]
    if unknown:
        sys.exit(f"there is no program {', '.join(unknown)}; there are {', '.join([*ROUNDS, *real])}")
    yield from kernel_works(directory, [name for name in names if name in ROUNDS], options.scale)
    for name in names:
        if name in real:
            try:
                yield real[name].work()
            except (PackageError, RunError) as error:
                print(f"{name} is left out: {error}", file=sys.stderr)


def _names(known):
    def parse(text):
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return parse


def _options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--bare", action="store_true", help="kernels on bare executors (the default)")
    mode.add_argument("--whole", action="store_true", help="whole processes of the user engine")
    parser.add_argument("--tiers", type=_names(TIERS), default=list(TIERS), help=",".join(TIERS))
    parser.add_argument("--memory", type=_names(MEMORIES), default=list(MEMORIES), help=",".join(MEMORIES))
    parser.add_argument("--states", type=_names(STATES), default=["cold", "warm"], help=",".join(STATES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--heat", type=float, default=1.0, metavar="S", help="seconds before --bare counts")
    parser.add_argument("--scale", type=float, default=1.0, help="10: a kernel takes qemu about a second")
    parser.add_argument("--json", metavar="FILE", help="write every sample to a file")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM")
    return parser.parse_args()


def main():
    options = _options()
    if missing_compilers():
        sys.exit(f"this benchmark needs {' and '.join(missing_compilers())} (package gcc-riscv64-linux-gnu)")
    results, failures = [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        contenders = None
        for work in works(options, directory):
            if contenders is None:
                contenders = _contenders(options, directory)
                measured = [one.name for one in contenders if one.name not in REFERENCES]
                print_heading(measured, "program")
            try:
                instructions = count_instructions(work, directory) if options.whole else count_bare(work)
                results.append(measure(work, contenders, options, instructions))
            except RunError as error:
                failures.append(work.name)
                print(f"{work.name} failed: {error}", file=sys.stderr)
                continue
            print_result(results[-1], measured)
    if not results:
        sys.exit("nothing could be measured")
    table = summary(results, measured)
    print_summary(table, len(results))
    if options.whole:
        print_processor_times(
            results, [*measured, *(name for name in REFERENCES if name in results[0].series)]
        )
    if options.json:
        with open(options.json, "w") as file:
            json.dump(as_json(results, table, options), file, indent=1)
    failures += [f"{result.name} (outputs differ)" for result in results if not result.same]
    if failures:
        sys.exit(f"failed: {', '.join(failures)}")


def _contenders(options, directory):
    if not options.whole:
        return bare_contenders(options)
    (nothing,) = kernel_works(directory, ["sieve"], 1)
    return whole_contenders(options, directory, nothing.riscv64)


if __name__ == "__main__":
    main()
