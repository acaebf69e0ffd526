"""How long the command line takes to start: what a verb imports is what its users wait for.

    python benchmarks/startup.py [ROUNDS]

Each contender is a whole process, measured in turns; the reference is a Python process that does nothing.
"""

import os
import statistics
import subprocess
import sys
import time

from anyvirt.engines import get

REFERENCE = "python -c pass"


def command(*words):
    """A function that runs a command to its end and demands success."""
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def in_turns(contenders, rounds, *, warm_up=1):
    """Seconds that each contender's function took in each of `rounds` turns, after some to warm up.

    What else the machine does falls on all alike when they take turns; a ratio is made within one turn.
    """
    samples = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, function in contenders.items():
            began = time.perf_counter()
            function()
            seconds = time.perf_counter() - began
            if turn >= warm_up:
                samples[name].append(seconds)
    return samples


def print_turns(samples, reference):
    """A line for each contender: median, fastest and slowest, and its ratio to `reference` turn by turn."""
    width = max(map(len, samples))
    print(f"{'':{width}}  {'median':>9}  {'fastest':>9}  {'slowest':>9}   time / {reference}")
    for name, seconds in samples.items():
        ratios = [own / base for own, base in zip(seconds, samples[reference], strict=True)]
        figures = "  ".join(
            f"{value * 1e3:6.2f} ms" for value in (statistics.median(seconds), min(seconds), max(seconds))
        )
        print(
            f"{name:{width}}  {figures}   {statistics.median(ratios):6.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    anyvirt = (os.path.join(os.path.dirname(sys.executable), "anyvirt"),)
    contenders = {
        "true": command("true"),
        REFERENCE: command(sys.executable, "-c", "pass"),
        "anyvirt --help": command(*anyvirt, "--help"),
        "anyvirt run --on native -- true": command(*anyvirt, "run", "--on", "native", "--", "true"),
    }
    if get("container").probe().available:
        contenders["anyvirt run --on container -- true"] = command(
            *anyvirt, "run", "--on", "container", "--", "true"
        )
    else:
        print("engine container is not available:", get("container").probe().reason)
    print_turns(in_turns(contenders, rounds), REFERENCE)


if __name__ == "__main__":
    main()
