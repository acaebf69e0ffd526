"""How long the command line takes to start: what a verb imports is what its users wait for.

    python benchmarks/startup.py [ROUNDS]

Each contender is a whole process, measured in turns; the reference is a Python process that does nothing.
"""

import os
import subprocess
import sys

from turns import in_turns, print_turns

from anyvirt.engines import get

REFERENCE = "python -c pass"


def command(*words):
    """A function that runs a command to its end and demands success."""
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


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
