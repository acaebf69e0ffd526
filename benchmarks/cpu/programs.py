"""What is run: the kernels, and real programs built from Debian's sources for RISC-V and for the host.

Real programs and their inputs are made when first wanted and kept in the cache directory; a program that
cannot be had is left out, with the reason.
"""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guest import ROUNDS, build
from processes import run_process
from sources import CACHE, SourceArchive, compile_program, run_step

COMPILERS = {"riscv64": "riscv64-linux-gnu-gcc", "native": "gcc"}
WORKLOADS = Path(__file__).with_name("workloads")
_TEXT_SIZE = 3_000_000


@dataclass(frozen=True)
class Work:
    """One thing to measure: a program in both builds, its arguments, and the file it reads."""

    name: str
    riscv64: Path
    native: Path
    arguments: tuple[str, ...]
    stdin: Path = Path("/dev/null")


@dataclass(frozen=True)
class Package:
    """A program of a Debian source package."""

    name: str
    files: tuple[str, ...]
    """Its sources, as patterns below the package's directory."""
    flags: tuple[str, ...] = ()
    """For the compiler; `{source}` is the package's directory."""
    libraries: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Names of matching files that are not part of it."""
    prepare: Callable[[Path], None] = lambda _: None
    """What to do in the package's directory before it can be compiled."""

    def build(self, machine):
        """The path of the program for "riscv64" or "native". Raises PackageError."""
        output = CACHE / "builds" / f"{self.name}-{machine}"
        if output.exists():
            return output
        source = SourceArchive(CACHE / "sources").fetch(self.name)
        self.prepare(source)
        output.parent.mkdir(parents=True, exist_ok=True)
        files = [path for pattern in self.files for path in sorted(source.glob(pattern))]
        compile_program(
            COMPILERS[machine],
            [path for path in files if path.name not in self.without],
            output,
            flags=[flag.format(source=source) for flag in self.flags],
            libraries=self.libraries,
        )
        return output


def _amalgamate(source):
    """SQLite is meant to be compiled as one file, which its own scripts write."""
    if not (source / "sqlite3.c").exists():
        run_step(("./configure", "--disable-tcl", "--disable-readline"), cwd=source)
        run_step(("make", "sqlite3.c", "shell.c"), cwd=source)


def _name_architecture(source):
    """Debian's build writes a header with the directory of modules, of which none is loaded here."""
    (source / "lua5.4-deb-multiarch.h").write_text('#define DEB_HOST_MULTIARCH "none"\n')


ZLIB = Package("zlib", ("*.c", "test/minigzip.c"), ("-I{source}", "-DHAVE_UNISTD_H"))
BZIP2 = Package(
    "bzip2",
    tuple(f"{name}.c" for name in (
        "blocksort", "huffman", "crctable", "randtable", "compress", "decompress", "bzlib", "bzip2",
    )),
    ("-D_FILE_OFFSET_BITS=64",),
)  # fmt: skip
ZSTD = Package(
    "libzstd",
    ("lib/common/*.c", "lib/compress/*.c", "lib/decompress/*.c", "lib/dictBuilder/*.c", "programs/*.c"),
    ("-I{source}/lib", "-DZSTD_DISABLE_ASM=1", "-DZSTD_NOTRACE"),
)
LZ4 = Package("lz4", ("lib/*.c", "programs/*.c"), ("-I{source}/lib",))
LUA = Package(
    "lua5.4",
    ("src/*.c",),
    ("-I{source}", "-DLUA_USE_POSIX"),
    ("-lm",),
    without=("luac.c",),
    prepare=_name_architecture,
)
SQLITE = Package(
    "sqlite3",
    ("sqlite3.c", "shell.c"),
    ("-DSQLITE_THREADSAFE=0", "-DSQLITE_OMIT_LOAD_EXTENSION"),
    ("-lm",),
    prepare=_amalgamate,
)
DUKTAPE = Package(
    "duktape",
    ("src/duktape.c", "examples/eval/eval.c"),
    ("-I{source}/src",),
    ("-lm",),
)


@dataclass(frozen=True)
class RealProgram:
    """A program with a task of about a second under emulation."""

    name: str
    package: Package
    arguments: tuple[str, ...] = ()
    stdin: Callable[[], Path] = lambda: Path("/dev/null")

    def work(self):
        """Both builds and the input. Raises PackageError."""
        builds = {machine: self.package.build(machine) for machine in COMPILERS}
        return Work(self.name, builds["riscv64"], builds["native"], self.arguments, self.stdin())


def _text(copies=1):
    """A text with the statistics of prose and of tables, the same each time, so many times over."""
    path = CACHE / (f"text.{copies}" if copies > 1 else "text")
    if copies > 1 and not path.exists():
        path.write_bytes(_text().read_bytes() * copies)
    if not path.exists():
        generator = random.Random(1)
        words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(3000)]
        weights = [1 / rank for rank in range(1, len(words) + 1)]
        pieces, size = [], 0
        while size < _TEXT_SIZE:
            if generator.random() < 0.8:
                piece = " ".join(generator.choices(words, weights, k=12)) + ".\n"
            else:
                piece = ";".join(str(generator.randint(0, 99999)) for _ in range(6)) + "\n"
            pieces.append(piece)
            size += len(piece)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(pieces))
    return path


def _packed_by(package, arguments, copies):
    """A function that returns the text as the host's build of a package compresses it."""

    def make():
        path = CACHE / f"text.{copies}.{package.name}"
        if not path.exists():
            text = _text(copies)
            path.write_bytes(run_process((package.build("native"), *arguments), stdin=text).output)
        return path

    return make


def _script():
    """The JavaScript program, which gets its number of rounds as text."""
    return (WORKLOADS / "tasks.js").read_text().replace("ROUNDS", "12")


REAL_PROGRAMS = (
    RealProgram("minigzip", ZLIB, ("-6",), lambda: _text(4)),
    RealProgram("gunzip", ZLIB, ("-d",), _packed_by(ZLIB, ("-6",), 24)),
    RealProgram("bzip2", BZIP2, ("-c",), lambda: _text(2)),
    RealProgram("bunzip2", BZIP2, ("-dc",), _packed_by(BZIP2, ("-c",), 3)),
    RealProgram("zstd", ZSTD, ("-8", "-c", "-q"), _text),
    RealProgram("unzstd", ZSTD, ("-d", "-c", "-q"), _packed_by(ZSTD, ("-8", "-c", "-q"), 6)),
    RealProgram("lz4", LZ4, ("-9", "-c", "-q"), _text),
    RealProgram("lua", LUA, (str(WORKLOADS / "tasks.lua"), "12")),
    RealProgram("sqlite3", SQLITE, ("-batch", ":memory:"), lambda: WORKLOADS / "orders.sql"),
    RealProgram("duktape", DUKTAPE, (_script(),)),
)


def kernel_works(directory, names, scale):
    """The kernels of these names as works, compiled into `directory`, with their rounds times `scale`."""
    paths = {}
    for machine, compiler in COMPILERS.items():
        flags = ("-march=rv64gc",) if machine == "riscv64" else ()
        paths[machine] = build(compiler, Path(directory, f"kernels-{machine}"), flags=flags)
    return [
        Work(name, paths["riscv64"], paths["native"], (name, str(max(1, round(ROUNDS[name] * scale)))))
        for name in names
    ]


def missing_compilers():
    """The compilers that are not installed."""
    return [compiler for compiler in COMPILERS.values() if shutil.which(compiler) is None]
