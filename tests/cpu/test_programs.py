"""The benchmark kernels as whole programs: every tier prints what qemu-user and the host print."""

import shutil
import subprocess
import time

import pytest

from .tiers import EXECUTORS, NAMES, guest

CROSS, NATIVE = shutil.which("riscv64-linux-gnu-gcc"), shutil.which("gcc")
QEMU = shutil.which("qemu-riscv64-static") or shutil.which("qemu-riscv64")
BUILDS = {"compressed": ("-march=rv64gc",), "plain": ("-march=rv64g", "-O1")}
TIMEOUT = 60


pytestmark = pytest.mark.skipif(
    not (CROSS and NATIVE), reason="needs gcc and riscv64-linux-gnu-gcc (package gcc-riscv64-linux-gnu)"
)


def digests(*command):
    """What the program prints for one round of every kernel, by kernel."""
    arguments = [word for kernel in guest.ROUNDS for word in (kernel, "1")]
    completed = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=TIMEOUT)
    assert completed.returncode == 0, completed.stderr
    return dict(zip(guest.ROUNDS, completed.stdout.split(), strict=True))


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return guest.build(NATIVE, tmp_path_factory.mktemp("native") / "kernels")


@pytest.fixture(scope="module")
def expected(native):
    """The host's digests."""
    return digests(native)


@pytest.fixture(scope="module", params=BUILDS)
def program(request, tmp_path_factory):
    output = tmp_path_factory.mktemp("riscv64") / "kernels"
    return guest.build(CROSS, output, flags=BUILDS[request.param])


def test_qemu_prints_what_the_host_prints(program, expected):
    if QEMU is None:
        pytest.skip("needs qemu-riscv64 (package qemu-user-static)")
    assert digests(QEMU, program) == expected


@pytest.mark.parametrize(("tier", "memory"), EXECUTORS, ids=NAMES)
@pytest.mark.parametrize("kernel", guest.ROUNDS)
def test_kernels(program, expected, kernel, tier, memory):
    assert guest.Program(program, [kernel, 1], tier=tier, memory=memory).run() == expected[kernel]


@pytest.mark.parametrize(("tier", "memory"), EXECUTORS, ids=NAMES)
def test_budgets_change_nothing(program, expected, tier, memory):
    for kernel in ("json", "rays"):
        counted = guest.Program(program, [kernel, 1], tier=tier, memory=memory)
        assert counted.run(1 << 40) == expected[kernel]
        assert counted.cpu.instructions > 100_000


def heated(program, kernel, tier, memory, seconds):
    """What the kernel prints, each time that it is run while the tier finds out what is hot."""
    again = guest.Program(program, [kernel, 2], tier=tier, memory=memory)
    outputs, deadline = {again.run()}, time.monotonic() + seconds
    while time.monotonic() < deadline:
        again.restart()
        outputs.add(again.run())
    return outputs


def printed_natively(build, kernel):
    return subprocess.run([build, kernel, "2"], capture_output=True, text=True).stdout.strip()


TRANSLATING = [pair for pair in EXECUTORS if pair[0] != "interpreter"]
TRANSLATING_NAMES = ["-".join(pair) for pair in TRANSLATING]


@pytest.mark.parametrize(("tier", "memory"), TRANSLATING, ids=TRANSLATING_NAMES)
@pytest.mark.parametrize("kernel", ["calls", "conversions", "json", "threaded", "virtual_calls"])
def test_translated_kernels(program, native, kernel, tier, memory):
    assert heated(program, kernel, tier, memory, 0.3) == {printed_natively(native, kernel)}


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "memory"), TRANSLATING, ids=TRANSLATING_NAMES)
@pytest.mark.parametrize("kernel", guest.ROUNDS)
def test_all_translated_kernels(program, native, kernel, tier, memory):
    assert heated(program, kernel, tier, memory, 3) == {printed_natively(native, kernel)}


def test_restart_runs_the_program_anew(program, expected):
    twice = guest.Program(program, ["hash", 1])
    assert twice.run() == expected["hash"]
    twice.restart()
    assert twice.run() == expected["hash"]


def test_a_wrong_result_is_noticed(program):
    with pytest.raises(RuntimeError, match="status 2: there is no kernel nonsense"):
        guest.Program(program, ["nonsense", 1]).run()
