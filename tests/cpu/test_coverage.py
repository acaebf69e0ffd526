"""Coverage maps: exact in every executor, and readable by others as files."""

import json
import re
import struct

import pytest

from anyvirt.cpu.coverage import Block, Coverage, Module
from anyvirt.cpu.disassembly import instruction_at
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory

from .test_hooks import ADD, AMO, BRANCH, CALL, CODE, EXECUTORS, LOAD, STORE, finish, flat, prepared


@pytest.fixture(params=EXECUTORS)
def cpu(request):
    return prepared(EXECUTORS[request.param]())


LOOP = Block(ADD, AMO, 4)
TAIL = Block(AMO, CALL + 4, 2)


def test_everything_that_was_executed_and_nothing_else(cpu):
    with Coverage(cpu, CODE, CODE + 0x2000) as coverage:
        cpu.run(2)
        assert coverage.addresses() == [ADD, STORE]
        cpu.run(1)
        assert coverage.addresses() == [ADD, STORE, LOAD]
        finish(cpu)
    assert coverage.addresses() == [ADD, STORE, LOAD, BRANCH, AMO, CALL]
    assert coverage.blocks() == [LOOP, TAIL]


def test_a_closed_map_stays_as_it_is_and_another_can_follow(cpu):
    with Coverage(cpu, CODE, CODE + 0x1000) as first:
        cpu.run(1)
        with pytest.raises(ValueError, match="already"):
            Coverage(cpu, CODE, CODE + 4)
    with Coverage(cpu, STORE, BRANCH) as second:
        finish(cpu)
    assert first.addresses() == [ADD]
    assert second.addresses() == [STORE, LOAD]


def test_compressed_instructions_and_jumps_into_blocks():
    cpu = prepared(
        Interpreter("riscv64", flat()), "c.li a0, 2\nc.nop\nloop: c.addi a0, -1\nbnez a0, loop\necall"
    )
    with Coverage(cpu, 0, cpu.memory.size) as coverage:
        cpu.run()
    assert coverage.blocks() == [
        Block(CODE, CODE + 4, 2),
        Block(CODE + 4, CODE + 10, 2),
        Block(CODE + 10, CODE + 14, 1),
    ]


def test_ranges_are_checked(cpu):
    for start, end in ((4, 4), (-4, 8)):
        with pytest.raises(ValueError, match="nothing can be covered"):
            Coverage(cpu, start, end)


def test_files(cpu, tmp_path):
    with Coverage(cpu, CODE, CODE + 0x1000) as coverage:
        finish(cpu)
    coverage.write_text(tmp_path / "text")
    assert (tmp_path / "text").read_text() == f"{ADD:#x} {AMO:#x} 4\n{AMO:#x} {CALL + 4:#x} 2\n"
    coverage.write_json(tmp_path / "json")
    content = json.loads((tmp_path / "json").read_text())
    assert content == {
        "isa": "riscv64",
        "start": CODE,
        "end": CODE + 0x1000,
        "blocks": [[ADD, AMO, 4], [AMO, CALL + 4, 2]],
    }
    coverage.write_drcov(tmp_path / "drcov", [Module("/none", 0, 8), Module("/bin/x", CODE, CODE + 0x1000)])
    head, _, rest = (tmp_path / "drcov").read_bytes().partition(b"BB Table: ")
    count, _, blocks = rest.partition(b" bbs\n")
    assert head.startswith(b"DRCOV VERSION: 2\nDRCOV FLAVOR: ")
    assert re.search(rb"Module Table: version 2, count 2\n", head)
    assert head.endswith(b", /bin/x\n")
    assert list(struct.iter_unpack("<IHH", blocks)) == [(0, 16, 1), (16, 8, 1)]
    assert int(count) == 2


def test_disassembly_of_what_is_no_instruction_and_of_the_end_of_memory():
    memory = FlatMemory()
    memory.map(0x1000, 0x1000, 7)
    cpu = Interpreter("riscv64", memory)
    memory.write(0x1FFE, b"\x13\x05")
    assert instruction_at(cpu, 0x1FFE).text is None
    assert instruction_at(cpu, 0x1FFE).length == 4
    assert instruction_at(cpu, 0x1000).shown == ".byte 0x00, 0x00"
    assert instruction_at(cpu, 0x5000).length == 2
    assert instruction_at(cpu, 1 << 63).text is None
