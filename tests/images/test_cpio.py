"""Archives for the kernel: read back by the cpio command, and compared field by field with the format."""

import io
import os
import re
import shutil
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.images.cpio import Attributes, CpioWriter
from anyvirt.images.errors import ImageError

NAMES = st.lists(
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12)
    .filter(lambda part: part not in (".", ".."))
    .filter(lambda part: len(part.encode()) < 200),
    min_size=1,
    max_size=4,
).map("/".join)


def archive(fill):
    sink = io.BytesIO()
    with CpioWriter(sink) as writer:
        fill(writer)
    return sink.getvalue()


def entries(data):
    """The entries of an archive as (name, header fields, body), by the kernel's own description."""
    found, offset = [], 0
    while True:
        header = data[offset : offset + 110]
        assert header[:6] == b"070701"
        assert re.fullmatch(rb"[0-9A-F]{104}", header[6:])
        fields = [int(header[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = data[offset + 110 : offset + 110 + name_size]
        assert name.endswith(b"\0")
        body = (offset + 110 + name_size + 3) & ~3
        offset = (body + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not data[offset:].strip(b"\0")
            return found
        found.append((name[:-1].decode(), fields, data[body : body + size]))


@pytest.fixture(scope="module")
def unpack(tmp_path_factory):
    """Unpack an archive with the cpio command and return the directory."""
    if shutil.which("cpio") is None:
        pytest.skip("needs cpio (package cpio)")

    def run(data):
        directory = tmp_path_factory.mktemp("unpacked")
        command = ["cpio", "--extract", "--quiet", "--no-absolute-filenames"]
        done = subprocess.run(command, input=data, cwd=directory, capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
        return directory

    return run


@given(st.dictionaries(NAMES, st.binary(max_size=40), max_size=5))
def test_files_have_their_parents_before_them_and_everything_is_aligned(files):
    usable = {
        name: content
        for name, content in files.items()
        if name != "TRAILER!!!" and not any(other.startswith(name + "/") for other in files)
    }

    def fill(writer):
        for name, content in usable.items():
            writer.file(name, content)

    data = archive(fill)
    seen, contents = {""}, {}
    for name, fields, body in entries(data):
        assert os.path.dirname(name) in seen
        if stat.S_ISDIR(fields[1]):
            assert name not in seen
            seen.add(name)
        else:
            contents[name] = body
    assert contents == usable
    assert len(data) % 512 == 0


def test_the_cpio_command_reads_back_every_kind_of_entry(unpack):
    def fill(writer):
        writer.directory("dev", Attributes(0o700))
        writer.file("/bin/tool", b"#!", Attributes(0o4755))
        writer.file("empty", b"")
        writer.symbolic_link("bin/alias", "tool")
        writer.linked_file(["one", "two/three"], b"shared")
        writer.pipe("dev/pipe")

    root = unpack(archive(fill))
    assert stat.S_IMODE((root / "dev").stat().st_mode) == 0o700
    assert (root / "bin/tool").read_bytes() == b"#!"
    assert stat.S_IMODE((root / "bin/tool").stat().st_mode) & 0o777 == 0o755
    assert (root / "bin/alias").readlink().name == "tool"
    assert (root / "one").samefile(root / "two/three")
    assert (root / "one").read_bytes() == b"shared"
    assert stat.S_ISFIFO((root / "dev/pipe").stat().st_mode)
    assert (root / "empty").stat().st_size == 0


def test_attributes_and_devices_are_where_the_format_has_them():
    ((name, fields, body),) = entries(
        archive(lambda writer: writer.character_device("console", 5, 1, Attributes(0o620, 3, 4, 99)))
    )
    assert (name, body) == ("console", b"")
    inode, mode, uid, gid, links, mtime, size, *_, major, minor, _, checksum = fields
    assert (inode, mode, uid, gid, links, mtime) == (1, stat.S_IFCHR | 0o620, 3, 4, 1, 99)
    assert (size, major, minor, checksum) == (0, 5, 1, 0)


def test_hard_links_share_an_inode_and_the_last_has_the_content():
    found = entries(archive(lambda writer: writer.linked_file(["a", "b"], b"x")))
    assert [(fields[0], fields[4], body) for _, fields, body in found] == [(1, 2, b""), (1, 2, b"x")]


def test_a_tree_comes_back_as_it_is(tmp_path, unpack):
    source = tmp_path / "source"
    (source / "etc/empty").mkdir(parents=True)
    (source / "etc/passwd").write_bytes(b"root" * 100_001)
    (source / "etc/passwd").chmod(0o640)
    (source / "etc/zlink").symlink_to("/nowhere")
    (source / "b").write_bytes(b"b")
    os.link(source / "b", source / "etc/a")
    root = unpack(archive(lambda writer: writer.tree(source, "usr/root")))
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", source, root / "usr/root"], capture_output=True, timeout=60
    )
    assert (compared.returncode, compared.stdout) == (0, b"")
    assert (root / "usr/root/b").samefile(root / "usr/root/etc/a")
    assert stat.S_IMODE((root / "usr/root/etc/passwd").stat().st_mode) == 0o640


def test_the_same_tree_gives_the_same_bytes(tmp_path):
    trees = []
    for number, names in enumerate((("b", "a", "c"), ("c", "b", "a"))):
        directory = tmp_path / str(number)
        directory.mkdir()
        for name in names:
            (directory / name).write_text(name)
            os.utime(directory / name, (number, number))
        trees.append(archive(lambda writer, directory=directory: writer.tree(directory)))
    assert trees[0] == trees[1]


def test_times_and_owners_are_kept_when_asked(tmp_path):
    (tmp_path / "file").write_text("")
    os.utime(tmp_path / "file", (5, 7))
    found = entries(archive(lambda writer: writer.tree(tmp_path, keep_owners=True, keep_times=True)))
    assert [(fields[2], fields[3], fields[5]) for _, fields, _ in found] == [(os.getuid(), os.getgid(), 7)]


@pytest.mark.parametrize("name", ["a/../b", "..", "a\0b", "x" * 4096, "TRAILER!!!", "", "/"])
def test_names_that_the_kernel_would_not_take_are_refused(name):
    with pytest.raises(ImageError):
        archive(lambda writer: writer.file(name, b""))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ImageError, match="below 4 GiB"):
        archive(lambda writer: writer.file("big", io.BytesIO(), size=1 << 32))
    with pytest.raises(ImageError, match="shorter while it was read"):
        archive(lambda writer: writer.file("short", io.BytesIO(b"ab"), size=3))
    with pytest.raises(ImageError, match="32 bits"):
        archive(lambda writer: writer.file("old", b"", Attributes(0o644, mtime=-1)))


def test_a_directory_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ImageError, match="cannot be read: No such file or directory"):
        archive(lambda writer: writer.tree(tmp_path / "missing"))
