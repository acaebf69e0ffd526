"""The workloads: right answers under every ISA, wrong ones noticed; the oracles share no code with them."""

import ctypes
import hashlib
import importlib
import math
import os
import re
import shutil
import subprocess

import pytest

from anyvirt.compare.workloads import FIRST_INSTRUCTION, WORKLOADS, find_workload
from anyvirt.isa.names import Isa
from anyvirt.jit.program import build_program
from anyvirt.typed import bits, f64, load32, load64, u32, u64

RUNNERS = {Isa.X86_64: (), Isa.RISCV64: ("qemu-riscv64-static",)}
# Under qemu-user a program of another ISA can execute another only where the kernel knows how (binfmt_misc).
CASES = [
    pytest.param(workload, isa, id=f"{workload.name}-{isa}")
    for workload in WORKLOADS
    for isa in RUNNERS
    if workload.name != "processes" or not RUNNERS[isa]
]


def module(name):
    return importlib.import_module(f"anyvirt.compare.workloads.{name}")


@pytest.fixture
def execute(tmp_path):
    """Builds a program and runs it in a directory of its own."""

    def run(main, isa, *arguments, cwd=tmp_path, stdin=b""):
        for tool in RUNNERS[isa]:
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")
        path = tmp_path / "program"
        path.unlink(missing_ok=True)
        path.write_bytes(build_program(main, isa))
        path.chmod(0o755)
        command = [*RUNNERS[isa], path, *arguments]
        return subprocess.run(command, capture_output=True, cwd=cwd, input=stdin, timeout=60, check=False)

    return run


def memory(size):
    buffer = ctypes.create_string_buffer(size)
    return buffer, u64(ctypes.addressof(buffer))


@pytest.mark.parametrize(("workload", "isa"), CASES)
class TestPrograms:
    def test_every_round_is_correct(self, workload, isa, execute, tmp_path):
        for rounds in (1, 3):
            done = execute(workload.main(), isa, str(rounds))
            assert done.stdout.decode() == f"{workload.name} {rounds} rounds correct\n"
            assert (done.stderr, done.returncode) == (b"", 0)
        assert os.listdir(tmp_path) == ["program"]

    def test_one_round_without_arguments(self, workload, isa, execute):
        assert execute(workload.main(), isa).stdout.endswith(b" 1 rounds correct\n")

    def test_bad_numbers_are_a_usage_error(self, workload, isa, execute):
        assert execute(workload.main(), isa, "1x").returncode == 2


@pytest.mark.parametrize(
    ("name", "constant", "wrong"),
    [
        ("integer", "DIGEST_OF_MESSAGE", tuple(u32(0) for _ in range(8))),
        ("floating_point", "FINAL_ENERGY", u64(0xBFC5A2AC7A3FEAF2)),
        ("branches", "PRIMES", 96),
        ("files", "_CREATE", 0o200),
        ("processes", "_EXITED", 256),
    ],
)
def test_a_wrong_result_is_noticed(name, constant, wrong, execute, monkeypatch):
    monkeypatch.setattr(module(name), constant, wrong)
    done = execute(module(name).main, Isa.X86_64, "2")
    assert done.returncode == 1
    assert done.stdout.endswith(b" WRONG\n")


@pytest.mark.parametrize("isa", list(RUNNERS))
class TestFirstInstruction:
    def test_writes_its_mark_and_waits(self, isa, execute):
        done = execute(FIRST_INSTRUCTION.main(), isa, stdin=b"some input")
        assert (done.stdout, done.returncode) == (b"!", 0)

    def test_the_mark_comes_before_everything_else(self, isa, tmp_path):
        """Even where the output cannot be written nothing else is done first: qemu's and strace's view."""
        tool = {Isa.X86_64: ["strace"], Isa.RISCV64: ["qemu-riscv64-static", "-strace"]}[isa]
        if shutil.which(tool[0]) is None:
            pytest.skip(f"{tool[0]} is not installed")
        path = tmp_path / "program"
        path.write_bytes(build_program(FIRST_INSTRUCTION.main(), isa))
        path.chmod(0o755)
        done = subprocess.run([*tool, path], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        calls = re.findall(r"^(?:\d+ )?(\w+)\(", done.stderr, re.MULTILINE)
        assert next(call for call in calls if call != "execve") == "write"


class TestOracles:
    def test_integer_is_sha_256(self):
        integer = module("integer")
        message = bytes((index * 131 + 17) & 255 for index in range(integer.MESSAGE_SIZE))
        words = b"".join(int(word).to_bytes(4, "big") for word in integer.DIGEST_OF_MESSAGE)
        assert words == hashlib.sha256(message).digest()

    @pytest.mark.parametrize("size", [64, 128, 320])
    def test_the_hash_of_other_messages(self, size, monkeypatch):
        integer = module("integer")
        buffer, address = memory(integer._MEMORY)
        integer.write_message(address, u64(size))
        expected = hashlib.sha256(buffer.raw[:size]).digest()
        integer.hash_message(address, u64(size))
        found = b"".join(
            int(load32(address + integer._STATE + at)).to_bytes(4, "big") for at in range(0, 32, 4)
        )
        assert found == expected

    def test_floating_point_conserves_energy_and_is_exact(self):
        floating = module("floating_point")
        state = [float(value) for value in floating.INITIAL_STATE]
        bodies = [(state[at : at + 3], state[at + 3 : at + 6], state[at + 6]) for at in range(0, 35, 7)]
        before = energy(bodies)
        for _ in range(floating.STEPS):
            advance(bodies, floating.STEP)
        after = energy(bodies)
        assert after == pytest.approx(before, rel=1e-3)
        assert bits(f64(after)) == floating.FINAL_ENERGY

    def test_momentum_is_zero(self):
        state = [float(value) for value in module("floating_point").INITIAL_STATE]
        for axis in range(3):
            assert sum(state[at + 3 + axis] * state[at + 6] for at in range(0, 35, 7)) == pytest.approx(
                0, abs=1e-12
            )

    def test_branches_counts_primes(self):
        branches = module("branches")
        primes = [number for number in range(2, branches.LIMIT) if all(number % d for d in range(2, number))]
        assert len(primes) == branches.PRIMES

    def test_the_bytecode_runs_under_cpython(self):
        branches = module("branches")
        buffer, address = memory(4096)
        ctypes.memmove(buffer, b"".join(int(word).to_bytes(4, "little") for word in branches.BYTECODE), 64)
        branches.interpret(address, address + 2048)
        assert load64(address + 2048 + branches._COUNT * 8) == branches.PRIMES

    @pytest.mark.parametrize("nodes", [4, 64, 1024])
    def test_the_chase_is_one_cycle_through_all_nodes(self, nodes):
        chase = module("pointer_chase")
        buffer, address = memory(nodes * chase.NODE_SIZE)
        chase.tie(address, u64(nodes))
        seen, node = set(), int(address)
        while node not in seen:
            seen.add(node)
            node = int.from_bytes(buffer[node - int(address) : node - int(address) + 8], "little")
        assert len(seen) == nodes
        assert node == int(address)
        assert chase.walk(address, u64(nodes)) == sum(range(nodes))

    def test_the_chase_jumps_far(self):
        chase = module("pointer_chase")
        nodes = chase.NODES
        steps = [(at * chase._MULTIPLIER + chase._INCREMENT) % nodes - at for at in range(1000)]
        assert sum(abs(step) * chase.NODE_SIZE > 4096 for step in steps) > 950

    def test_a_broken_cycle_is_noticed(self):
        chase = module("pointer_chase")
        buffer, address = memory(16 * chase.NODE_SIZE)
        chase.tie(address, u64(16))
        ctypes.c_uint64.from_buffer(buffer, 64).value = int(address) + 64
        assert chase.walk(address, u64(16)) != sum(range(16))

    def test_the_stream_does_four_operations(self):
        stream = module("memory_stream")
        buffer, address = memory(3 * 64)
        stream.fill(address, u64(64), f64(1.0))
        scale = f64(stream._SCALE)
        stream.stream(address, address + 64, address + 128, u64(64), scale)
        values = (ctypes.c_double * 24).from_buffer(buffer)
        b = stream._SCALE * 1.0
        assert list(values[8:16]) == [b] * 8
        assert list(values[16:24]) == [1.0 + b] * 8
        assert list(values[0:8]) == [b + stream._SCALE * (1.0 + b)] * 8
        assert values[0] == pytest.approx(1.0)
        assert stream.differing(address + 64, u64(64), f64(b)) == 0
        values[9] = 7.0
        assert stream.differing(address + 64, u64(64), f64(b)) == 1


def advance(bodies, step):
    """One step of the same physics in plain floats; the order of operations is part of the answer."""
    for index, (position, velocity, mass) in enumerate(bodies):
        for other_position, other_velocity, other_mass in bodies[index + 1 :]:
            d = [here - there for here, there in zip(position, other_position, strict=True)]
            squared = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
            magnitude = step / (squared * math.sqrt(squared))
            for axis in range(3):
                velocity[axis] -= d[axis] * (other_mass * magnitude)
                other_velocity[axis] += d[axis] * (mass * magnitude)
    for position, velocity, _ in bodies:
        for axis in range(3):
            position[axis] += step * velocity[axis]


def energy(bodies):
    total = 0.0
    for index, (position, velocity, mass) in enumerate(bodies):
        v = velocity
        total += 0.5 * mass * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
        for other_position, _, other_mass in bodies[index + 1 :]:
            d = [here - there for here, there in zip(position, other_position, strict=True)]
            total -= mass * other_mass / math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    return total


def test_files_need_a_working_directory_to_write_in(execute, tmp_path):
    elsewhere = tmp_path / "gone"
    elsewhere.mkdir()
    path = tmp_path / "program"
    path.write_bytes(build_program(module("files").main, Isa.X86_64))
    path.chmod(0o755)
    command = f"cd {elsewhere} && rmdir {elsewhere} && exec {path} 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=30, check=False)
    assert done.stdout == b"files cannot make a directory in the working directory\n"
    assert done.returncode == 1


def test_workloads_are_found_by_name():
    assert [find_workload(workload.name) for workload in WORKLOADS] == list(WORKLOADS)
    assert find_workload("first-instruction") is FIRST_INSTRUCTION
    with pytest.raises(KeyError):
        find_workload("nothing")
