"""x86 in every executor that runs it: forms and streams against Unicorn, a sample against the host's CPU."""

import random
import re
import struct

import pytest

from anyvirt.cpu.executor import Access, StopReason
from anyvirt.cpu.interpreter import Interpreter
from anyvirt.cpu.memory import FlatMemory
from anyvirt.cpu.reference import ReferenceExecutor
from anyvirt.errors import UnsupportedError
from anyvirt.isa.x86.control import SOFTWARE_INTERRUPT
from anyvirt.isa.x86.flags import STATUS, Flag
from anyvirt.isa.x86.machine import FLAT, LONG, PROTECTED, REAL

unicorn = pytest.importorskip("unicorn")
from .host_x86 import HostProcessor  # noqa: E402
from .regional import Regional  # noqa: E402
from .stenciled import Stenciled  # noqa: E402
from .x86_machines import (  # noqa: E402
    CODE,
    DATA,
    DESCRIPTIONS,
    PAGE,
    Machine,
    Oracle,
    Start,
    encode,
    get_flags,
    set_flags,
)

EXECUTORS = {"reference": ReferenceExecutor, "interpreter": Interpreter}
TRANSLATING = {"stencil": Stenciled, "region": Regional}
"""They translate what they come to before they run it."""
MODES = {"x86_64": LONG, "i386": FLAT}
FORMS = 3
"""Random instructions of each pattern."""
CARRY, PARITY, ADJUST, ZERO, SIGN, OVERFLOW = (
    1 << flag for flag in (Flag.CARRY, Flag.PARITY, Flag.ADJUST, Flag.ZERO, Flag.SIGN, Flag.OVERFLOW)
)
PRIVILEGED = 1 << Flag.INTERRUPT | 3 << 12
"""POPF does not change these in user mode, and Unicorn is not in user mode."""
UNDEFINED = {
    **dict.fromkeys(("and", "or", "xor", "test"), ADJUST),
    **dict.fromkeys(("bt", "bts", "btr", "btc"), OVERFLOW | SIGN | ADJUST | PARITY),
    **dict.fromkeys(("bsf", "bsr"), STATUS & ~ZERO),
    **dict.fromkeys(("mul", "imul"), SIGN | ZERO | ADJUST | PARITY),
    **dict.fromkeys(("div", "idiv"), STATUS),
    **dict.fromkeys(("shl", "shr", "sar", "shld", "shrd"), ADJUST),
    **dict.fromkeys(("popf", "popfd", "popfq"), PRIVILEGED),
}
"""Flags that the manual leaves undefined, by mnemonic."""
SHIFTS = {"shl", "shr", "sar", "shld", "shrd", "rol", "ror", "rcl", "rcr"}
ELSEWHERE = {
    "rdtsc": "time",
    "int3": "stops",
    "int": "stops",
    "syscall": "stops",
    "ud2": "stops",
}
"""Not compared with Unicorn here, and why."""
NOT_UNICORN = {
    "lahf": "Unicorn takes AH for SPL if there is a REX prefix",
    "sahf": "as lahf",
    "mov": "Unicorn refuses C6 and C7 /0 with REX.R",
    "test": "Unicorn does not know F6 and F7 /1",
    "lock neg": "Unicorn computes the flags of another operand",
    "cmpxchg": "Unicorn writes a register of 32 bits, and so its upper half, in any case",
}
"""Where Unicorn is wrong by the manual and by the host's processor."""


def mnemonic_of(text):
    return text.removeprefix("lock ").split()[0]


def ignored(text, code, start):
    """Flags that need not be as Unicorn has them."""
    mnemonic = mnemonic_of(text)
    mask = UNDEFINED.get(mnemonic, 0)
    if mnemonic in SHIFTS:
        operand = text.rpartition(", ")[2]
        count = (start.registers[1] if operand == "cl" else int(operand, 0)) & 63
        size = 64 if code[0] & 0xF8 == 0x48 or any(byte & 0xF8 == 0x48 for byte in code[:3]) else 32
        if count & (63 if size == 64 else 31) != 1:
            mask |= OVERFLOW
        if count & 31 >= 8:
            # More than all bits of an operand of 8 or 16 bits: CF, and for SHLD and SHRD the result.
            mask |= CARRY if mnemonic in ("shl", "shr", "sar") else 0
    return mask


def is_undefined(text, code):
    """Whether more than flags may be undefined: SHLD and SHRD of 16 bits."""
    return mnemonic_of(text) in ("shld", "shrd") and b"\x66" in code[:3]


def is_known_difference(text, code):
    if any(byte & 0xF0 == 0x40 for byte in code[:-1]) and mnemonic_of(text) in ("lahf", "sahf"):
        return True
    if text.startswith("lock neg"):
        return True
    if mnemonic_of(text) == "test" and re.search(b"[\xf6\xf7][\x08-\x0f\x48-\x4f\x88-\x8f\xc8-\xcf]", code):
        return True
    rex_r = any(byte & 0xF4 == 0x44 for byte in code[:4])
    if mnemonic_of(text) == "mov" and rex_r and (b"\xc7" in code or b"\xc6" in code):
        return True
    return re.match(r"cmpxchg (e|r\d+d)", text) is not None


def cases(mode, seed, count, wanted=lambda pattern: True):
    """Random instructions of every form, in random states."""
    description = DESCRIPTIONS[mode]
    generator = random.Random(seed)
    for pattern in description.patterns:
        if pattern.mnemonic in ELSEWHERE or not wanted(pattern):
            continue
        for _ in range(count):
            code = encode(generator, pattern, mode)
            if code is None:
                continue
            found = description.decode(code, mode)
            text = description.disassemble(found.word, 0, CODE)
            yield code, text, Start(generator, mode)


def disagreement(text, code, start, error, expected, stop, actual):
    """What differs, where that is not known to be so."""
    if isinstance(error, unicorn.UcError):
        if error.errno in (unicorn.UC_ERR_FETCH_UNMAPPED, unicorn.UC_ERR_FETCH_PROT):
            # Unicorn fetches the next instruction, too.
            return None if stop.reason == StopReason.BUDGET else f"{stop}"
        return None if stop.reason == StopReason.ACCESS_FAULT else f"{error}: {stop}"
    if stop.reason == StopReason.TRAP:
        # Unicorn has no table of handlers and says little, but does not execute the instruction.
        return None if expected["pc"] == CODE and stop.address == 0 else f"{stop}"
    if stop.reason == StopReason.ACCESS_FAULT and stop.address >> 40:
        # Unicorn's addresses have fewer bits.
        return None
    if stop.reason != StopReason.BUDGET or error is not None:
        return f"{error}: {stop}"
    mask = ignored(text, code, start)
    expected["flags"] |= mask
    actual["flags"] |= mask
    if text.startswith("rep") and actual["registers"][1] == 0:
        # Unicorn comes once more to find that nothing is left.
        actual["pc"] = expected["pc"]
    return [name for name in expected if expected[name] != actual[name]] or None


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("isa", MODES)
def test_every_form(isa, executor):
    mode = MODES[isa]
    machine, oracle = Machine(EXECUTORS[executor], mode), Oracle(mode)
    wrong = []
    for code, text, start in cases(mode, 1, FORMS):
        if is_known_difference(text, code):
            continue
        error, expected = oracle.run(start, code)
        stop, actual = machine.run(start, code)
        found = disagreement(text, code, start, error, expected, stop, actual)
        if found:
            wrong.append((code.hex(), text, found))
    assert not wrong


@pytest.mark.parametrize("isa", MODES)
def test_both_executors_agree_about_everything(isa):
    """Undefined flags, faults and traps included."""
    mode = MODES[isa]
    first, second = (Machine(make, mode) for make in EXECUTORS.values())
    for code, text, start in cases(mode, 2, 2):
        assert first.run(start, code) == second.run(start, code), (code.hex(), text)


STREAM = 40
STREAMS = 60
FRAME = re.compile(r"\[[er][sb]p( [+-] 0x[0-9a-f]{1,2})?\]")
KEPT = re.compile(r"\b([er]?(sp|bp)|(sp|bp)l)\b")
NOT_IN_STREAMS = re.compile(
    r"j|div|idiv|rep|movs[bwdq]$|cmps|stos|lods|scas|shld|shrd|cmpxchg|push|pop|lahf|sahf"
)
DEFINE_ALL = {LONG: b"\x48\x39\xc0", FLAT: b"\x39\xc0"}
"""`cmp rax, rax`: behind an instruction with undefined flags."""
LEAVES = {"call", "ret", "loop", "loope", "loopne", "leave", "enter"}


def stays(pattern):
    """Whether execution goes on behind an instruction."""
    return pattern.mnemonic not in LEAVES | set(ELSEWHERE) and not pattern.mnemonic.startswith("j")


def fits_a_stream(text):
    """Whether an instruction touches memory only near the frame, and leaves the registers for that alone."""
    if NOT_IN_STREAMS.match(mnemonic_of(text)) or (mnemonic_of(text)[:2] == "bt" and "[" in text):
        return False
    rest = FRAME.sub("", text)
    return "[" not in rest and not KEPT.search(rest)


def stream(generator, mode):
    """Code of random instructions, and its listing."""
    description, code, listing = DESCRIPTIONS[mode], b"", []
    patterns = [pattern for pattern in description.patterns if stays(pattern)]
    while len(listing) < STREAM:
        one = encode(generator, generator.choice(patterns), mode)
        if one is None:
            continue
        text = description.disassemble(description.decode(one, mode).word, 0)
        if fits_a_stream(text) and not is_known_difference(text, one):
            undefined = mnemonic_of(text) in UNDEFINED or mnemonic_of(text) in SHIFTS
            code += one + (DEFINE_ALL[mode] if undefined else b"")
            listing.append(text)
    return code, listing


@pytest.mark.parametrize("budget", [None, 1 << 20])
@pytest.mark.parametrize("executor", EXECUTORS | TRANSLATING)
@pytest.mark.parametrize("isa", MODES)
def test_streams(isa, executor, budget):
    mode = MODES[isa]
    machine, oracle = Machine((EXECUTORS | TRANSLATING)[executor], mode), Oracle(mode)
    generator = random.Random(3)
    for _ in range(STREAMS if executor in EXECUTORS else STREAMS // 4):
        code, listing = stream(generator, mode)
        start = Start(generator, mode)
        start.registers[5] = start.registers[4] + 0x80
        error, expected = oracle.run(start, code, budget=0)
        stop, actual = machine.run(start, code + b"\xcc", budget)
        assert error is None, listing
        assert stop.reason == StopReason.BREAKPOINT, listing
        assert actual == expected, listing


def test_a_sample_on_the_hosts_processor():
    """What neither faults nor uses segments, directly on this machine."""
    mode = LONG
    machine = Machine(Interpreter, mode)
    batch = []
    for code, text, start in cases(mode, 4, 4, wanted=stays):
        if "fs:" in text or "gs:" in text or is_undefined(text, code):
            continue
        if mnemonic_of(text).startswith("popf"):
            continue
        stop, actual = machine.run(start, code)
        if stop.reason == StopReason.BUDGET and actual["pc"] == CODE + len(code):
            batch.append((code, text, start, actual))
    assert len(batch) > 1500
    with HostProcessor() as host:
        results = host.run([(code, start) for code, _, start, _ in batch])
    wrong = []
    for (code, text, start, actual), expected in zip(batch, results, strict=True):
        mask = ignored(text, code, start)
        flags = (actual["flags"] ^ expected["flags"]) & STATUS & ~mask
        if flags or actual["registers"] != expected["registers"] or actual["data"] != expected["data"]:
            wrong.append((code.hex(), text, hex(flags)))
    assert not wrong


# What oracles are not asked ---------------------------------------------------------------------------------


@pytest.fixture(params=EXECUTORS)
def make(request):
    return EXECUTORS[request.param]


def machine_with(make, isa, code, address=CODE):
    memory = FlatMemory(1 << 32)
    memory.map(CODE, 2 * PAGE, 7)
    memory.map(DATA, 2 * PAGE, 3)
    memory.write(address, code)
    cpu = make(isa, memory)
    cpu.pc = address
    return cpu


def test_a_repeated_instruction_can_be_stopped_at_any_element(make):
    cpu = machine_with(make, "x86_64", b"\xf3\xa4\xcc")
    cpu.memory.write(DATA, b"hello, world")
    registers = cpu.registers("r")
    registers[1], registers[6], registers[7] = 12, DATA, DATA + 0x100
    for done in range(1, 12):
        stop = cpu.run(1)
        assert (stop.reason, stop.pc) == (StopReason.BUDGET, CODE)
        assert (registers[1], registers[6], registers[7]) == (12 - done, DATA + done, DATA + 0x100 + done)
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.memory.read(DATA + 0x100, 12) == b"hello, world"


def test_a_repeated_instruction_stops_where_memory_ends(make):
    cpu = machine_with(make, "x86_64", b"\xf3\x48\xab\xcc")
    registers = cpu.registers("r")
    registers[0], registers[1], registers[7] = 7, 100, DATA + 2 * PAGE - 20
    stop = cpu.run()
    assert (stop.reason, stop.pc, stop.access) == (StopReason.ACCESS_FAULT, CODE, Access.WRITE)
    assert (registers[1], registers[7]) == (98, DATA + 2 * PAGE - 4)
    cpu.memory.map(DATA + 2 * PAGE, PAGE, 3)
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert registers[1] == 0


def test_a_division_error_is_a_trap(make):
    cpu = machine_with(make, "x86_64", b"\xf7\xf1")
    stop = cpu.run()
    assert (stop.reason, stop.pc, stop.address) == (StopReason.TRAP, CODE, 0)


def test_interrupts_by_software_are_told_from_exceptions(make):
    cpu = machine_with(make, "i386", b"\xcd\x80")
    stop = cpu.run()
    assert (stop.reason, stop.pc, stop.address) == (StopReason.TRAP, CODE, SOFTWARE_INTERRUPT | 0x80)


def test_a_system_call_leaves_address_and_flags_in_registers(make):
    cpu = machine_with(make, "x86_64", b"\x0f\x05")
    set_flags(cpu, CARRY | 0x202)
    stop = cpu.run()
    assert (stop.reason, stop.pc, stop.length) == (StopReason.SYSTEM_CALL, CODE, 2)
    assert (cpu.registers("r")[1], cpu.registers("r")[11]) == (CODE + 2, CARRY | 0x202)


LAST = CODE + 2 * PAGE
"""The first address behind the code."""


@pytest.mark.parametrize("available", [1, 3, 6])
def test_an_instruction_that_reaches_into_nothing_faults_there(make, available):
    code = bytes.fromhex("48c7c078563412")
    cpu = machine_with(make, "x86_64", code[:available], LAST - available)
    stop = cpu.run()
    assert (stop.reason, stop.pc) == (StopReason.ACCESS_FAULT, LAST - available)
    assert (stop.address, stop.access) == (LAST, Access.EXECUTE)
    assert cpu.registers("r")[0] == 0


def test_an_instruction_across_pages(make):
    code = bytes.fromhex("48c7c078563412cc")
    for before in range(1, 7):
        cpu = machine_with(make, "x86_64", code, CODE + PAGE - before)
        assert cpu.run().reason == StopReason.BREAKPOINT
        assert cpu.registers("r")[0] == 0x12345678


def test_what_ends_with_the_last_byte_runs(make):
    cpu = machine_with(make, "x86_64", b"\x90\xcc", LAST - 2)
    assert cpu.run().reason == StopReason.BREAKPOINT


def test_code_that_changes_itself(make):
    # mov byte ptr [rip+1], 0x42; mov al, 0x11 (becomes 0x42); int3
    cpu = machine_with(make, "x86_64", bytes.fromhex("c6050100000042b011cc"))
    cpu.run(1)
    cpu.invalidate(CODE, PAGE)
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.registers("r")[0] & 0xFF == 0x42


def test_more_than_15_bytes_are_no_instruction(make):
    assert machine_with(make, "x86_64", b"\x66" * 14 + b"\x90\xcc").run(1).reason == StopReason.BUDGET
    assert machine_with(make, "x86_64", b"\x66" * 15 + b"\x90\xcc").run(1).reason == (
        StopReason.ILLEGAL_INSTRUCTION
    )


def test_the_same_bytes_in_another_mode(make):
    # 64-bit: rex.w inc eax... has no 40; 48 is a prefix. 32-bit: dec eax; 16-bit: dec ax.
    code = bytes.fromhex("48ffc0cc")
    cpu = machine_with(make, "x86_64", code)
    cpu.registers("r")[0] = 0xFFFFFFFF
    cpu.run()
    assert cpu.registers("r")[0] == 0x100000000
    cpu = machine_with(make, "i386", code)
    cpu.registers("r")[0] = 0x10000
    cpu.run()
    assert cpu.registers("r")[0] == 0x10000
    cpu = machine_with(make, "i386", code)
    cpu.set_state("mode", REAL)
    cpu.registers("r")[0] = 0x10000
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert cpu.registers("r")[0] == 0x10000


def test_a_change_of_mode_decodes_anew(make):
    # dec eax; dec rax in 64-bit code, elsewhere two times dec eax
    cpu = machine_with(make, "x86_64", bytes.fromhex("ffc848ffc8cc"))
    cpu.registers("r")[0] = 0x100000005
    cpu.run()
    assert cpu.registers("r")[0] == 3
    cpu.set_state("mode", PROTECTED)
    cpu.pc = CODE
    cpu.run()
    assert cpu.registers("r")[0] == 0


def test_regions_have_one_mode():
    cpu = machine_with(Regional, "i386", b"\xcc")
    with pytest.raises(UnsupportedError, match="mode"):
        cpu.set_state("mode", REAL)


def test_segments_of_16_bit_code(make):
    # mov al, [bx+si]; mov ah, [bp]; mov cl, es:[0x10]; int3
    cpu = machine_with(make, "i386", bytes.fromhex("8a00 8a6600 268a0e1000 cc".replace(" ", "")))
    cpu.set_state("mode", REAL)
    es, cs, ss, ds = 0, 1, 2, 3
    bases = cpu.registers("segment_base")
    bases[es], bases[cs], bases[ss], bases[ds] = DATA, 0, DATA + 0x100, DATA + 0x200
    registers = cpu.registers("r")
    registers[3], registers[6], registers[5] = 0xFFF0, 0x20, 0x30
    for address, value in ((DATA + 0x210, 0x11), (DATA + 0x130, 0x22), (DATA + 0x10, 0x33)):
        cpu.memory.write(address, bytes([value]))
    assert cpu.run().reason == StopReason.BREAKPOINT
    assert (registers[0], registers[1]) == (0x2211, 0x33)


def test_16_bit_jumps_wrap_in_their_segment(make):
    memory = FlatMemory(1 << 32)
    memory.map(CODE, 0x10000, 7)
    memory.write(CODE + 0xFFFD, b"\xe9\x10\x00")
    memory.write(CODE + 0x10, b"\xcc")
    cpu = make("i386", memory)
    cpu.set_state("mode", REAL)
    cpu.registers("segment_base")[1] = CODE
    cpu.pc = CODE + 0xFFFD
    stop = cpu.run()
    assert (stop.reason, stop.pc) == (StopReason.BREAKPOINT, CODE + 0x10)


def test_locked_operations_of_several_processors_do_not_get_lost():
    import threading

    # lock inc dword ptr [rdi]; loop back; int3
    code = bytes.fromhex("f0ff07 e2fb cc".replace(" ", ""))
    memory = FlatMemory(1 << 32)
    memory.map(CODE, PAGE, 7)
    memory.map(DATA, PAGE, 3)
    memory.write(CODE, code)

    def count():
        cpu = Interpreter("x86_64", memory)
        cpu.pc = CODE
        cpu.registers("r")[1], cpu.registers("r")[7] = 50_000, DATA
        assert cpu.run().reason == StopReason.BREAKPOINT

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert struct.unpack("<I", memory.read(DATA, 4)) == (150_000,)


@pytest.mark.parametrize("value", [0, STATUS, CARRY, PARITY | ZERO, SIGN | ZERO, OVERFLOW | ADJUST])
def test_flags_can_be_anything(make, value):
    cpu = machine_with(make, "x86_64", b"\x90")
    set_flags(cpu, value)
    assert get_flags(cpu) & STATUS == value
