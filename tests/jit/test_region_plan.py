"""Which instructions make a region: what is followed, and what is left to other regions."""

from collections import Counter

import pytest

from anyvirt.cpu.profile import frequent_targets
from anyvirt.isa.assembler import assemble
from anyvirt.isa.riscv64 import riscv64
from anyvirt.jit.handlers import Features
from anyvirt.jit.region_plan import Hints, discover
from anyvirt.jit.region_template import Templates

BASE = 0x1000
PROGRAM = """
loop:
    addi s0, s0, -1
call:
    CALL
behind:
    bne s0, zero, loop
last:
    jalr zero, 0(s1)
function:
    add a0, a0, a1
leave:
    jalr zero, 0(ra)
elsewhere:
    jalr ra, 0(a2)
behind_elsewhere:
    ebreak
"""
TEMPLATES = Templates(riscv64, Features(counted=False, fma=False, memory="flat"))


def plan(entry, hints, call="jal ra, function", limit=100):
    """The plan around a label of the program, and where its labels are; `hints` are labels by label."""
    program = assemble(riscv64, PROGRAM.replace("CALL", call), BASE)
    places = program.symbols

    def read(address, length):
        offset = address - BASE
        return program.code[offset : offset + length] or None if offset >= 0 else None

    seen = {places[source]: [places[goal] for goal in goals] for source, goals in hints.items()}
    return discover(TEMPLATES, read, places[entry], Hints(indirect=seen), limit), places


def region(*arguments, **options):
    """The labels that are in the region."""
    found, places = plan(*arguments, **options)
    return {label for label, address in places.items() if address in found.steps}


LOOP = {"loop", "call", "behind", "last"}
FUNCTION = {"function", "leave"}


def test_a_loop_has_the_function_that_it_calls():
    assert region("loop", {"leave": ["behind"]}) == LOOP | FUNCTION


def test_a_loop_has_functions_that_it_has_been_seen_to_call():
    assert region("loop", {"call": ["function"]}, call="jalr ra, 0(a3)") == LOOP | FUNCTION


def test_a_function_has_its_only_caller_if_that_calls_it_again():
    assert region("function", {"leave": ["behind"]}) == LOOP | FUNCTION


def test_a_function_has_no_caller_that_may_call_others():
    assert region("function", {"leave": ["behind"]}, call="jalr ra, 0(a3)") == FUNCTION


def test_a_function_that_is_called_from_several_places_has_none_of_them():
    assert region("function", {"leave": ["behind", "behind_elsewhere"]}) == FUNCTION


def test_an_indirect_jump_is_followed_to_what_is_not_behind_a_call():
    assert region("function", {"leave": ["last"]}) == FUNCTION | {"last"}
    assert region("function", {"leave": ["last", "loop"]}) == LOOP | FUNCTION


def test_what_is_taken_back_does_not_count_as_cut_off():
    found, _ = plan("function", {"leave": ["behind"]}, call="jalr ra, 0(a3)", limit=3)
    assert len(found.steps) == 2
    assert not found.is_cut


@pytest.mark.parametrize(
    ("counts", "known"),
    [
        ([1], 1),
        ([1, 1, 1], 3),
        ([1, 1, 1, 1], 0),
        ([20, 1, 1, 1, 1], 5),
        ([3, 1, 1, 1, 1], 0),
        ([100, 60, 1], 2),
    ],
)
def test_targets_are_known_unless_the_next_one_is_likely_to_be_new(counts, known):
    assert len(frequent_targets(Counter(dict(enumerate(counts))))) == known
