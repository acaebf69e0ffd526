"""Images of a machine's memory: what is in them, what is shared, and what nobody sees of anybody else."""

import gc
import os
import weakref
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyvirt.cpu import machine_memory
from anyvirt.cpu.machine_memory import MachineMemory
from anyvirt.cpu.memory_image import BankImage, Piece, joined
from anyvirt.cpu.page_marks import PageMarks, runs

PAGE = 4096
RAM, PAGES = 0x8000_0000, 64
ROM = 0x1000


def make(content=b"what is in the ROM"):
    memory = MachineMemory()
    memory.add_ram(RAM, PAGES * PAGE)
    memory.add_rom(ROM, content)
    return memory


def content(memory):
    return memory.read(RAM, PAGES * PAGE)


pages = st.integers(0, PAGES - 1)
stores = st.lists(st.tuples(pages, st.binary(min_size=1, max_size=8)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(stores, min_size=1, max_size=6), st.data())
def test_an_image_is_what_was_there_whatever_happens_later(rounds, data):
    memory, model = make(), bytearray(PAGES * PAGE)
    images = [(memory.freeze(), bytes(model))]
    for round_ in rounds:
        for page, text in round_:
            memory.write(RAM + page * PAGE, text)
            model[page * PAGE : page * PAGE + len(text)] = text
        images.append((memory.freeze(), bytes(model)))
        if data.draw(st.booleans()):
            image, expected = data.draw(st.sampled_from(images))
            memory.become(image)
            model = bytearray(expected)
    for image, expected in images:
        other = make(b"\0")
        other.become(image)
        assert content(other) == expected
        assert other.read(ROM, 18) == b"what is in the ROM"
    assert content(memory) == model


def test_memories_of_one_image_see_nothing_of_each_other():
    first = make()
    first.write(RAM, b"x" * 40 * PAGE)
    image = first.freeze()
    second, third = make(), make()
    second.become(image)
    third.become(image)
    first.write(RAM + PAGE, b"first")
    second.write(RAM + PAGE, b"second")
    assert [memory.read(RAM + PAGE, 6) for memory in (first, second, third)] == [
        b"firstx", b"second", b"xxxxxx",
    ]  # fmt: skip


def test_an_image_costs_what_was_written_since_the_last_one(monkeypatch):
    copies = []
    copied = machine_memory.copied

    def count(host, stretches, name):
        copies.append(sum(end - start for start, end in stretches))
        return copied(host, stretches, name)

    monkeypatch.setattr(machine_memory, "copied", count)
    memory = make()
    memory.write(RAM, b"x" * 20 * PAGE)
    memory.freeze()
    memory.write(RAM + 30 * PAGE, b"y")
    memory.freeze()
    memory.freeze()
    assert copies == [PAGE, 20 * PAGE, 0, PAGE, 0, 0]


def test_too_many_pieces_become_few(monkeypatch):
    monkeypatch.setattr(machine_memory, "MOST_PIECES", 3)
    memory = make()
    for page in (0, 12, 24, 36, 48):
        memory.write(RAM + page * PAGE, b"x")
        image = memory.freeze()
        ram = next(bank for bank in image.banks if bank.is_ram)
        assert len(ram.pieces) <= 3
    other = make()
    other.become(image)
    assert content(other) == content(memory)


def test_dirty_pages_and_images_do_not_disturb_each_other():
    memory = make()
    memory.write(RAM, b"x")
    memory.freeze()
    assert memory.dirty_pages() == [RAM]
    memory.clear_dirty()
    memory.write(RAM + 5 * PAGE, b"y")
    memory.clear_dirty()
    assert memory.dirty_pages() == []
    other = make()
    other.become(memory.freeze())
    assert other.read(RAM + 5 * PAGE, 1) == b"y"
    assert other.dirty_pages() == [RAM, RAM + 5 * PAGE]


def test_an_image_of_other_memory_is_refused():
    other = MachineMemory()
    other.add_ram(RAM, PAGE)
    with pytest.raises(OSError, match="other RAM"):
        other.become(make().freeze())


def test_code_is_forgotten_with_the_memory_it_was_in(tmp_path):
    from anyvirt.cpu.interpreter import Interpreter
    from anyvirt.isa.riscv64_system import riscv64_system

    memory = make()
    memory.write(RAM, riscv64_system.assemble("addi a0, zero, 1\nwfi", RAM))
    image = memory.freeze()
    cpu = Interpreter("riscv64_system", memory)
    for expected in (1, 2, 1):
        cpu.pc = RAM
        cpu.run(max_instructions=1)
        assert cpu.x[10] == expected
        if expected == 1:
            memory.write(RAM, riscv64_system.assemble("addi a0, zero, 2\nwfi", RAM))
        else:
            memory.become(image)


def test_files_are_closed_when_no_image_needs_them():
    memory, files = make(), []
    for page in (0, 20, 40, 20):
        memory.write(RAM + page * PAGE, b"x")
        ram = next(bank for bank in memory.freeze().banks if bank.is_ram)
        files += [weakref.ref(piece.file) for piece in ram.pieces]
        del ram
    gc.collect()
    assert len({file() for file in files} - {None}) == 3
    descriptors = {file().descriptor for file in files if file() is not None}
    assert all(os.fstat(descriptor) for descriptor in descriptors)
    del memory
    gc.collect()
    assert all(file() is None for file in files)


@given(st.lists(st.tuples(pages, pages, st.integers(1, 9)), max_size=8))
def test_the_newest_piece_is_seen(layers):
    image, model = BankImage(RAM, PAGES * PAGE, True), [(None, 0)] * PAGES
    for first, second, place in layers:
        start, end = min(first, second), max(first, second) + 1
        new = Piece(start * PAGE, end * PAGE, object(), place * PAGE)
        image = BankImage(RAM, PAGES * PAGE, True, image.overlaid([new]))
        for page in range(start, end):
            model[page] = (new.file, (place + page - start) * PAGE)
    seen = [(None, 0)] * PAGES
    for before, after in pairwise(image.pieces):
        assert before.end <= after.start
    for piece in image.pieces:
        for page in range(piece.start // PAGE, piece.end // PAGE):
            seen[page] = (piece.file, piece.place + page * PAGE - piece.start)
    assert seen == model


@given(st.lists(st.tuples(st.integers(0, 20), st.lists(st.integers(0, 1), max_size=30)), max_size=5))
def test_marks_are_a_set(additions):
    marks, model = PageMarks(), set()
    for first, values in additions:
        marks.add(first, bytes(values))
        model |= {first + index for index, value in enumerate(values) if value}
    found = [page for start, end in runs(marks.joined(0, bytes(60))) for page in range(start, end)]
    assert found == sorted(model)
    marks.clear()
    assert not any(marks.joined(0, bytes(60)))


@given(st.sets(st.integers(0, 60)), st.integers(0, 5))
def test_little_gaps_are_closed(members, gap):
    marks = bytes(int(number in members) for number in range(61))
    found = list(joined(runs(marks), gap))
    covered = {number for start, end in found for number in range(start, end)}
    assert members <= covered
    assert all(after[0] - before[1] > gap for before, after in pairwise(found))
    assert all(start in members and end - 1 in members for start, end in found)
