"""Memory that the compiler of regions keeps after a region is done.

    python benchmarks/cpu/leak.py [--regions N] [--warm N]

Compiles regions of random RISC-V code as the compile server does, a different one each time, and prints how
much its resident memory has grown since the first ones (which fill caches and pools), and what that comes
to for 100,000 regions.
"""

import argparse
import random
import time

from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.compile_protocol import Request
from anyvirt.jit.compile_server import Client, compile_image

PAGE = 4096
ADDRESS_BITS = 38
BODY = 20
"""Instructions of a region, besides the branch that closes its loop."""
FORMS = (
    "add {}, {}, {}", "sub {}, {}, {}", "mul {}, {}, {}", "xor {}, {}, {}", "sll {}, {}, {}",
    "sltu {}, {}, {}", "ld {}, {imm}({})", "sd {}, {imm}({})", "lbu {}, {imm}({})",
    "fadd.d {f}, {f}, {f}", "fmul.d {f}, {f}, {f}",
)  # fmt: skip


def resident():
    """Bytes of this process's resident memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE


def random_code(generator):
    """A loop of random instructions, as a page of code."""
    code = b""
    for _ in range(BODY):
        form = generator.choice(FORMS)
        numbers = [generator.randrange(32) for _ in range(3)]
        kind = "f" if "{f}" in form else "x"
        registers = [f"{kind}{number}" for number in numbers]
        line = form.replace("{f}", "{}").format(*registers, imm=8 * generator.randrange(64))
        code += riscv64.assemble(line)
    code += riscv64.assemble(f"bne x5, x6, {-len(code)}")
    return code.ljust(PAGE, b"\0")


def compile_one(number, generator):
    """Compile a region as for a client of its own, at an address where there was none."""
    client = Client(None)
    code = generator.getrandbits(ADDRESS_BITS) & -PAGE
    request = Request(number, "riscv64", code, False, memory_size=1 << ADDRESS_BITS, pages=[code])
    client.accept(request, random_code(generator))
    _, image = compile_image(client, client.wanted.popleft())
    if not image:
        raise SystemExit(f"region {number} was not compiled")


def main():
    """Compile, and print the growth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--regions", type=int, default=20_000)
    parser.add_argument("--warm", type=int, default=2_000, help="regions before growth is counted")
    options = parser.parse_args()
    generator = random.Random(0)
    for number in range(options.warm):
        compile_one(number, generator)
    before, begin, used = resident(), time.monotonic(), time.process_time()
    for number in range(1, options.regions + 1):
        compile_one(number, generator)
        if number % max(options.regions // 10, 1) == 0:
            grown = (resident() - before) / 2**20
            print(
                f"{number:7} regions: {grown:+.2f} MiB ({grown / number * 100_000:+.1f} per 100,000)",
                flush=True,
            )
    each = (time.process_time() - used) / options.regions * 1000
    print(
        f"{each:.1f} ms of CPU time each, {time.monotonic() - begin:.0f} s in all; {resident() >> 20} MiB now"
    )


if __name__ == "__main__":
    main()
