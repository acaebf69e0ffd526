"""Measuring contenders in turns, in one run, and printing their times and ratios with spread.

What else the machine does falls on all contenders alike when they take turns, so a ratio is made from the
samples of one turn. The benchmarks in the folders beside this file import it.
"""

import statistics
import time


def in_turns(contenders, rounds, *, warm_up=1):
    """Seconds that each contender's function took in each of `rounds` turns, after some to warm up."""
    samples = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, function in contenders.items():
            began = time.perf_counter()
            function()
            seconds = time.perf_counter() - began
            if turn >= warm_up:
                samples[name].append(seconds)
    return samples


def print_turns(samples, reference, *, unit="ms"):
    """A line for each contender: median, fastest and slowest, and its ratio to `reference` turn by turn."""
    scale = {"s": 1, "ms": 1e3, "µs": 1e6}[unit]
    width = max(map(len, samples))
    print(f"{'':{width}}  {'median':>9}  {'fastest':>9}  {'slowest':>9}   time / {reference}")
    for name, seconds in samples.items():
        ratios = [own / base for own, base in zip(seconds, samples[reference], strict=True)]
        figures = "  ".join(
            f"{value * scale:6.2f} {unit}"
            for value in (statistics.median(seconds), min(seconds), max(seconds))
        )
        print(
            f"{name:{width}}  {figures}   {statistics.median(ratios):6.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
