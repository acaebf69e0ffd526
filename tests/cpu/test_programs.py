"""The benchmark kernels as whole programs: the interpreter tier prints what qemu-user and the host print."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "cpu"
CROSS, NATIVE = shutil.which("riscv64-linux-gnu-gcc"), shutil.which("gcc")
QEMU = shutil.which("qemu-riscv64-static") or shutil.which("qemu-riscv64")

pytestmark = pytest.mark.skipif(
    not (CROSS and NATIVE), reason="needs gcc and riscv64-linux-gnu-gcc (package gcc-riscv64-linux-gnu)"
)


@pytest.fixture(scope="module")
def guest():
    spec = importlib.util.spec_from_file_location("benchmark_guest", BENCHMARKS / "guest.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.parametrize(
    "kernel", ["sieve", "sort", "hash", "machine", "matrix", "tree", "calls", "strings", "bodies"]
)
@pytest.mark.parametrize("flags", [("-march=rv64gc",), ("-march=rv64g", "-O1")], ids=["compressed", "plain"])
def test_kernels(guest, tmp_path, kernel, flags):
    program = guest.build(CROSS, kernel, tmp_path / "riscv64", flags=flags, rounds=1)
    expected = output_of(guest.build(NATIVE, kernel, tmp_path / "native", rounds=1))
    assert guest.Program(program).run() == expected
    counted = guest.Program(program)
    assert counted.run(1 << 40) == expected
    assert counted.cpu.instructions > 100_000
    if QEMU:
        assert output_of(QEMU, program) == expected
