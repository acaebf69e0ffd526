"""Overlays that are written at once, against QEMU's tools and our own reader of any image."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyvirt.images.errors import ImageError
from anyvirt.images.qcow2 import Qcow2Disk, create_qcow2, image_files
from anyvirt.images.qcow2_overlay import CLUSTER, OverlayWriter, read_overlay


def write_overlay(path, size, clusters, backing):
    """`clusters` by their numbers: bytes, or None for zeros."""
    chosen = {number: content is not None for number, content in sorted(clusters.items())}
    writer = OverlayWriter(path, size, chosen, backing_file=backing, backing_format="raw")
    for _, content in sorted(clusters.items()):
        if content is not None:
            writer.write(memoryview(content))
    assert writer.finish() == path.stat().st_size
    writer.close()


def read_back(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        header, clusters = read_overlay(descriptor, what="it")
        return header, {
            number: None if place is None else os.pread(descriptor, CLUSTER, place)
            for number, place in clusters.items()
        }
    finally:
        os.close(descriptor)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40 * 128), st.dictionaries(st.integers(0, 39), st.booleans(), max_size=12))
def test_others_read_the_same(sectors, chosen):
    directory = Path(os.environ["ANYVIRT_STATE"]) / "overlay"
    directory.mkdir()
    try:
        size, source = sectors * 512, random.Random(1)
        expected = bytearray(source.randbytes(size))
        (directory / "base").write_bytes(expected)
        clusters = {}
        for number, has_data in chosen.items():
            start = number * CLUSTER
            length = min(CLUSTER, size - start)
            if length > 0:
                clusters[number] = source.randbytes(length) if has_data else None
                expected[start : start + length] = clusters[number] or bytes(length)
        path = directory / "overlay.qcow2"
        write_overlay(path, size, clusters, directory / "base")
        disk = Qcow2Disk(path)
        found = bytearray(size)
        disk.preadv([memoryview(found)], 0)
        disk.close()
        assert found == expected
        header, again = read_back(path)
        assert header.size == size and header.backing_file == str(directory / "base")
        assert again.keys() == clusters.keys()
        assert all(
            again[number] == (content and content.ljust(CLUSTER, b"\0"))
            for number, content in clusters.items()
        )
        if shutil.which("qemu-img") is not None:
            subprocess.run(["qemu-img", "check", "-q", path], check=True)
            raw = directory / "raw"
            subprocess.run(["qemu-img", "convert", "-O", "raw", path, raw], check=True)
            assert raw.read_bytes() == expected
    finally:
        shutil.rmtree(directory)


def test_far_apart_and_more_than_a_block_of_counts_is_about(tmp_path):
    """Two gigabytes of clusters in use, nearly all of them holes in the file."""
    (tmp_path / "base").write_bytes(b"")
    size = 1 << 40
    numbers = [*range(33_000), (1 << 24) - 1]
    path = tmp_path / "overlay.qcow2"
    writer = OverlayWriter(
        path, size, dict.fromkeys(numbers, True), backing_file=tmp_path / "base", backing_format="raw"
    )
    writer._next += 33_000 * CLUSTER
    writer.write(memoryview(b"last" * 128))
    writer.finish()
    writer.close()
    descriptor = os.open(path, os.O_RDONLY)
    _, clusters = read_overlay(descriptor, what="it")
    os.close(descriptor)
    assert list(clusters) == numbers
    disk = Qcow2Disk(path, read_only=True)
    found = bytearray(512)
    disk.preadv([memoryview(found)], size - CLUSTER)
    disk.close()
    assert found == b"last" * 128
    if shutil.which("qemu-img") is not None:
        subprocess.run(["qemu-img", "check", "-q", path], check=True, timeout=60)


def test_what_is_no_such_overlay_is_refused(tmp_path):
    create_qcow2(tmp_path / "small", 1 << 20, cluster_bits=12)
    (tmp_path / "text").write_bytes(b"text" * 100)
    for name in ("small", "text"):
        with pytest.raises(ImageError, match=r"^it "):
            read_back(tmp_path / name)


def test_the_files_behind_an_image(tmp_path):
    (tmp_path / "base").write_bytes(bytes(1 << 20))
    (tmp_path / "in").mkdir()
    create_qcow2(tmp_path / "in" / "first", 1 << 20, backing_file="../base", backing_format="raw")
    create_qcow2(tmp_path / "second", 1 << 20, backing_file="in/first", backing_format="qcow2")
    found = image_files(tmp_path / "second", format="qcow2")
    assert [path.resolve() for path in found] == [
        tmp_path / "second",
        tmp_path / "in" / "first",
        tmp_path / "base",
    ]
    assert image_files(tmp_path / "base", format="raw") == [tmp_path / "base"]
    with pytest.raises(ImageError, match="cannot be opened"):
        image_files(tmp_path / "nothing", format="qcow2")
    create_qcow2(tmp_path / "loop", 1 << 20, backing_file="loop", backing_format="qcow2")
    with pytest.raises(ImageError, match="more than 32 backing files"):
        image_files(tmp_path / "loop", format="qcow2")
