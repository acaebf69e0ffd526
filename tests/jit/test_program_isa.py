"""The machine code in the tables is the assembly beside it; system call numbers are the kernel's."""

import re
import shutil
import subprocess

import capstone
import pytest

from anyvirt.isa.names import Isa
from anyvirt.jit.program_isa import PROGRAM_ISAS

DISASSEMBLERS = {
    Isa.X86_64: (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
    Isa.RISCV64: (capstone.CS_ARCH_RISCV, capstone.CS_MODE_RISCV64),
}
COMPILERS = {Isa.X86_64: "gcc", Isa.RISCV64: "riscv64-linux-gnu-gcc"}
CASES = [(isa, code) for isa, rules in PROGRAM_ISAS.items() for code in (rules.start, rules.system_call)]


@pytest.mark.parametrize(("isa", "function"), CASES, ids=lambda value: getattr(value, "name", value))
def test_bytes_disassemble_to_the_assembly(isa, function):
    disassembler = capstone.Cs(*DISASSEMBLERS[isa])
    for word, assembly in function.instructions:
        if assembly == "call main":
            assert word == "e800000000"
            continue
        (instruction,) = disassembler.disasm(bytes.fromhex(word), 0)
        shown = f"{instruction.mnemonic} {instruction.op_str}".strip()
        assert normal(shown) == normal(assembly)


def normal(assembly):
    """One spelling for what disassemblers spell differently."""
    text = re.sub(r"(?<![\w])-?(0x[0-9a-f]+|\d+)", lambda match: str(int(match[0], 0)), assembly)
    return re.sub(r"^mv (\w+), (\w+)$", r"addi \1, \2, 0", text)


@pytest.mark.parametrize("isa", list(PROGRAM_ISAS))
def test_system_call_numbers_are_those_of_the_kernel_headers(isa):
    if shutil.which(COMPILERS[isa]) is None:
        pytest.skip(f"{COMPILERS[isa]} is not installed")
    names = PROGRAM_ISAS[isa].system_calls
    source = "#include <sys/syscall.h>\n" + "".join(f"{name} SYS_{name}\n" for name in names)
    command = [COMPILERS[isa], "-E", "-P", "-x", "c", "-"]
    shown = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60, check=False)
    if shown.returncode != 0:
        pytest.skip(f"the headers of the C library for {isa} are not installed")
    theirs = dict(line.split() for line in shown.stdout.splitlines() if line.strip())
    assert {name: str(number) for name, number in names.items()} == theirs
