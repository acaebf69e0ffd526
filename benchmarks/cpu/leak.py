"""Memory that a guest's process and the compiler of regions keep when code comes and goes all the time.

    python benchmarks/cpu/leak.py [--regions N] [--warm N] [--length N]

A guest rewrites its code again and again: loops of random RISC-V instructions, no two alike. Each is compiled
by a compile server started for this run, comes back over its socket, is published in the guest's arena, is
executed, and is given up when the guest writes the next code in its place: all that the region tier does,
except that places are called hot here rather than found by sampling. What is on disk is in a temporary
directory.

For both processes the resident memory is printed, without pages of files, and how much it has grown since
the first regions, which fill caches and pools; of the arena, the most that translations have taken. A
compile server ends after `RETIREMENT` regions, and the next one takes its place: the growth that counts is
the most of any of them.
"""

import argparse
import os
import random
import socket
import struct
import tempfile
import time
from pathlib import Path

from anyvirt.cpu.arena import ARENA_SIZE, arena
from anyvirt.cpu.executor import StopReason
from anyvirt.cpu.memory import PAGE_SIZE, FlatMemory, Protection
from anyvirt.cpu.profile import HOT, Profile
from anyvirt.cpu.region_client import SOCKET
from anyvirt.cpu.tiers import make_executor
from anyvirt.cpu.translation import translation_space
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.cache import version
from anyvirt.paths import cache_directory

CODE, DATA = 0x10_0000, 0x80_0000
LOOPS = 64
"""Loops that are there at a time, each in a page of its own."""
ITERATIONS = 3
COUNTER, POINTER, RETURN_ADDRESS = 5, 8, 1
POOL_SIZE = 4000
INTERVAL = 0.002
"""Seconds between two looks for what has been compiled."""
REPORTS = 40
"""Lines on the way."""
PATIENCE = 2000
"""Looks without news after which places are hot enough to be asked for again."""
FORMS = (
    "add {x}, {x}, {x}", "sub {x}, {x}, {x}", "mul {x}, {x}, {x}", "xor {x}, {x}, {x}", "sll {x}, {x}, {x}",
    "sltu {x}, {x}, {x}", "divu {x}, {x}, {x}", "addi {x}, {x}, {n}", "andi {x}, {x}, {n}",
    "ld {x}, {n}(x8)", "sd {x}, {n}(x8)", "lbu {x}, {n}(x8)", "sw {x}, {n}(x8)",
    "fadd.d {f}, {f}, {f}", "fmul.d {f}, {f}, {f}", "fcvt.d.l {f}, {x}", "fld {f}, {n}(x8)",
)  # fmt: skip


def random_instructions(generator):
    """Encoded instructions to make loops of: to encode each anew would take longer than to compile."""
    registers = [number for number in range(6, 32) if number != POINTER]
    pool = []
    for _ in range(POOL_SIZE):
        line = generator.choice(FORMS)
        for mark, kind in (("{x}", "x"), ("{f}", "f")):
            while mark in line:
                line = line.replace(mark, f"{kind}{generator.choice(registers)}", 1)
        pool.append(riscv64.assemble(line.replace("{n}", str(8 * generator.randrange(128)))))
    return pool


def resident(pid):
    """Bytes of the resident memory of a process, without pages of files.

    Those are the page cache's: the kernel takes them from a process and gives them back as it likes.
    """
    kinds = ("RssAnon:", "RssShmem:")
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith(kinds))


def server_of(directory):
    """The pid of the compile server that listens in a directory."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.fspath(directory / f"{SOCKET}-{version()}"))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack("3i", credentials)[0]


def _make_cpu(memory, directory):
    """A CPU that turns to the server of a directory too, should it find hot places itself."""
    # One with the user's directory first: the interpreter's own code is compiled already there.
    make_executor("riscv64", memory, tier="region")
    os.environ["ANYVIRT_STATE"] = os.fspath(directory)
    return make_executor("riscv64", memory, tier="region")


class Guest:
    """A guest that rewrites its code, and its virtual CPU."""

    def __init__(self, directory, length):
        """Loops of 1 to `length` instructions, compiled by the server of a directory."""
        self._random = random.Random(0)
        self._pool = random_instructions(self._random)
        self._length = length
        self._memory = FlatMemory()
        self._memory.map(CODE, LOOPS * PAGE_SIZE, Protection.READ | Protection.WRITE | Protection.EXECUTE)
        self._memory.map(DATA, PAGE_SIZE, Protection.READ | Protection.WRITE)
        self._cpu = _make_cpu(self._memory, directory)
        self.space = translation_space(self._memory, "riscv64", counted=False)
        self._profile = Profile("riscv64", self.space, cache_directory(), counted=False)
        self.most_used = 0

    def _rewrite(self, place):
        """Put a new loop, which returns when it has been gone through a few times, at a place."""
        body = b"".join(self._random.choices(self._pool, k=self._random.randint(1, self._length)))
        body += riscv64.assemble(f"addi x{COUNTER}, x{COUNTER}, -1")
        body += riscv64.assemble(f"bne x{COUNTER}, x0, {-len(body)}")
        # An unusual constant makes the loop's code unlike any that has been there.
        head = riscv64.assemble(f"lui x6, {self._random.getrandbits(19)}")
        self._memory.write(place, head + body + riscv64.assemble("ecall"))

    def _run(self, place):
        """Execute what is at a place."""
        cpu = self._cpu
        cpu.x[COUNTER], cpu.x[POINTER], cpu.pc = ITERATIONS, DATA, place
        stop = cpu.run()
        if stop.reason != StopReason.SYSTEM_CALL:
            raise SystemExit(f"a loop ended with {stop}")

    def _compile(self, places):
        """Have regions compiled and published; what was out of date when it came is asked for again."""
        idle = 0
        missing = places
        while missing:
            if idle % PATIENCE == 0:
                for place in missing:
                    for _ in range(HOT << 2 * (idle // PATIENCE)):
                        self._profile.note(place, 0)
            self._profile.serve(0)
            time.sleep(INTERVAL)
            left = [place for place in missing if self.space.at(place) is None]
            idle = idle + 1 if len(left) == len(missing) else 1
            missing = left
            if idle == 8 * PATIENCE:
                raise SystemExit(f"{len(missing)} regions have not been compiled")

    def turn(self):
        """Write all loops anew, have them compiled and execute them; returns how many there are."""
        places = [CODE + number * PAGE_SIZE for number in range(LOOPS)]
        for place in places:
            self._rewrite(place)
            self._run(place)
        self._compile(places)
        self.most_used = max(self.most_used, arena().used)
        for place in places:
            self._run(place)
        return len(places)


class Growth:
    """How much more memory the processes hold than when they were warm."""

    def __init__(self, directory):
        self._directory = directory
        self.servers = set()
        """Compile servers that there have been."""
        self._warm = self._sizes()
        self._most = dict.fromkeys(self._warm, 0)

    def _sizes(self):
        try:
            server = server_of(self._directory)
            self.servers.add(server)
            return {"compiler": resident(server), "guest": resident(os.getpid())}
        except OSError:
            # One has just ended, and the next one does not listen yet.
            return {"guest": resident(os.getpid())}

    def line(self):
        """Look, and say what is there."""
        told = []
        for name, size in self._sizes().items():
            grown = size - self._warm[name]
            self._most[name] = max(self._most[name], grown)
            growth = f"{grown / 2**20:+6.2f}, most {self._most[name] / 2**20:+6.2f}"
            told.append(f"{name} {size / 2**20:7.2f} MiB ({growth})")
        return ", ".join(told)


def report(done, growth, guest):
    """Print a line."""
    used = f"arena {arena().used >> 10} KiB of {ARENA_SIZE >> 20} MiB (most {guest.most_used >> 10})"
    print(f"{done:8} regions: {growth.line()}, {used}", flush=True)


def main():
    """Compile, and print the growth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--regions", type=int, default=100_000)
    parser.add_argument("--warm", type=int, default=2_000, help="regions before growth is counted")
    parser.add_argument("--length", type=int, default=8, help="most instructions of a loop's body")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        guest = Guest(Path(name), options.length)
        directory = cache_directory()
        done = 0
        while done < options.warm:
            done += guest.turn()
        growth = Growth(directory)
        begin = time.monotonic()
        report(0, growth, guest)
        done, told = 0, 1
        while done < options.regions:
            done += guest.turn()
            if done * REPORTS >= told * options.regions:
                told += 1
                report(done, growth, guest)
        counts = guest.space.statistics
        print(
            f"{counts.published} regions of {counts.instructions / counts.published:.1f} instructions "
            f"published, {counts.given_up} given up, by {len(growth.servers)} compile servers; "
            f"{time.monotonic() - begin:.0f} s in all"
        )


if __name__ == "__main__":
    main()
