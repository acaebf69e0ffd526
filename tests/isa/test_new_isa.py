"""The instruction set that docs/adding-an-isa.md builds, disassembled and run in every executor."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from anyvirt.cpu.executor import Stop, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor

DOCUMENTS = Path(__file__).parents[2] / "docs"
CODE, DATA = 0x1000, 0x2000


def python_blocks(name):
    return re.findall(r"^```python\n(.*?)^```", (DOCUMENTS / name).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    (source,) = python_blocks("adding-an-isa.md")
    path = tmp_path_factory.mktemp("isa") / "toy.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("anyvirt.isa.toy", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module.toy
    del sys.modules[spec.name]


def test_it_is_disassembled(toy):
    assert toy.disassemble(0x1007, 2) == "set d, 1"
    assert toy.disassemble(0x4000 | 0xFFC << 0, 2, pc=0x1006) == "loop a, 0x1004"
    assert toy.disassemble(0x0123, 2) is None


@pytest.mark.parametrize("make", [Interpreter, ReferenceExecutor])
@pytest.mark.parametrize("budget", [None, 1000])
def test_it_runs(toy, make, budget):
    # set b, 5; set c, 0; top: add c, b; store c, 8(d); loop b, top; load a, 8(d); add a, a; adc a; call
    program = [0x1015, 0x1002, 0x0009, 0x308B, 0x4FF9, 0x2083, 0x0000, 0x0100, 0xFFFF]
    memory = FlatMemory()
    memory.map(CODE, 0x1000, 7)
    memory.map(DATA, 0x1000, 3)
    memory.write(CODE, b"".join(word.to_bytes(2, "little") for word in program))
    cpu = make("toy", memory)
    cpu.pc = CODE
    cpu.registers("r")[3] = DATA
    assert cpu.run(budget) == Stop(StopReason.SYSTEM_CALL, CODE + 16, length=2)
    assert list(cpu.registers("r")) == [30, 0, 15, DATA]
    assert memory.read(DATA + 8, 8) == (15).to_bytes(8, "little")
    cpu.registers("r")[0] = 1 << 63
    cpu.pc = CODE + 12
    cpu.run(budget)
    assert (cpu.registers("r")[0], cpu.state("carry")) == (1, 1)


@pytest.mark.parametrize("number", range(len(python_blocks("typed-python.md"))))
def test_the_examples_of_typed_python_compile(tmp_path, number, capsys):
    path = tmp_path / "example.py"
    path.write_text(python_blocks("typed-python.md")[number])
    spec = importlib.util.spec_from_file_location("example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if number == 0:
        from anyvirt.jit.frontend import Module
        from anyvirt.jit.target import Target

        Module(Target()).add(module.checksum)
    else:
        assert "readcyclecounter" in capsys.readouterr().out
