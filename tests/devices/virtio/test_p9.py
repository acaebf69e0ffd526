"""virtio-9p against a client made from the protocol: files, directories, attributes, and no way out."""

import contextlib
import errno
import os
import stat
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.devices.virtio.driver import NEEDS_RESET, PACKED, FakeMemory, Guest

from anyvirt.devices.virtio.p9 import VirtioP9
from anyvirt.errors import UsageError

STATFS, LOPEN, LCREATE, SYMLINK, MKNOD, READLINK, GETATTR, SETATTR = 8, 12, 14, 16, 18, 22, 24, 26
READDIR, FSYNC, LOCK, GETLOCK, LINK, MKDIR, RENAMEAT, UNLINKAT = 40, 50, 52, 54, 70, 72, 74, 76
VERSION, ATTACH, FLUSH, WALK, READ, WRITE, CLUNK = 100, 104, 108, 110, 116, 118, 120
KINDS = (STATFS, LOPEN, LCREATE, SYMLINK, MKNOD, READLINK, GETATTR, SETATTR, READDIR, FSYNC, LINK, MKDIR)
KINDS += (RENAMEAT, UNLINKAT, WALK, READ, WRITE, CLUNK, ATTACH)
ROOT, FID, OTHER = 0, 1, 2


class Failed(Exception):
    pass


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<H", len(value)) + value


class Client:
    def __init__(self, device, ring=0, memory=None):
        self.guest = Guest(device, memory, features=ring)
        self.tag = 0
        self.version()

    def version(self):
        answer = self.ask(VERSION, struct.pack("<I", 65536) + text("9P2000.L"))
        assert answer == struct.pack("<I", 65536) + text("9P2000.L")
        self.ask(ATTACH, struct.pack("<II", ROOT, 2**32 - 1) + text("") + text("") + bytes(4))

    def ask(self, kind, body=b"", room=8192):
        before = self.guest.allocator.start
        self.tag = (self.tag + 1) & 0xFFFF
        message = struct.pack("<IBH", 7 + len(body), kind, self.tag) + body
        answer, written = self.guest.request(0, [message[:9], message[9:]], [11, room])
        self.guest.allocator.start = before
        size, answered, tag = struct.unpack("<IBH", answer[:7])
        assert (size, tag) == (written, self.tag)
        body = answer[7:size]
        if answered == 7:
            raise Failed(struct.unpack("<I", body)[0])
        assert answered == kind + 1, (answered, kind)
        return body

    def walk(self, *names, new=FID, old=ROOT):
        if new != old:
            self.clunk(new)
        answer = self.ask(WALK, struct.pack("<IIH", old, new, len(names)) + b"".join(map(text, names)))
        assert len(answer) == 2 + 13 * struct.unpack("<H", answer[:2])[0]
        return len(answer) // 13 == len(names)

    def clunk(self, fid):
        with contextlib.suppress(Failed):
            self.ask(CLUNK, struct.pack("<I", fid))

    def open(self, *names, flags=0):
        assert self.walk(*names)
        self.ask(LOPEN, struct.pack("<II", FID, flags))

    def read(self, offset=0, count=4096, fid=FID):
        answer = self.ask(READ, struct.pack("<IQI", fid, offset, count))
        assert struct.unpack("<I", answer[:4])[0] == len(answer) - 4
        return answer[4:]

    def write(self, offset, data, fid=FID):
        return struct.unpack("<I", self.ask(WRITE, struct.pack("<IQI", fid, offset, len(data)) + data))[0]

    def create(self, name, *, at=(), flags=os.O_RDWR, mode=0o644):
        assert self.walk(*at)
        self.ask(LCREATE, struct.pack("<I", FID) + text(name) + struct.pack("<III", flags, mode, 0))

    def attributes(self, fid=FID):
        answer = self.ask(GETATTR, struct.pack("<IQ", fid, 0x7FF))
        assert len(answer) == 8 + 13 + 12 + 40 + 80
        mode, user, group = struct.unpack("<III", answer[21:33])
        links, _, size, _, _ = struct.unpack("<5Q", answer[33:73])
        return mode, user, group, links, size, struct.unpack("<6Q", answer[73:121])

    def set_attributes(self, valid, *, mode=0, user=0, group=0, size=0, times=(0, 0, 0, 0), fid=FID):
        self.ask(SETATTR, struct.pack("<IIIIIQ4Q", fid, valid, mode, user, group, size, *times))

    def names(self, *path, count=4096):
        self.open(*path, flags=os.O_DIRECTORY)
        result, position = [], 0
        while True:
            answer = self.ask(READDIR, struct.pack("<IQI", FID, position, count))[4:]
            if not answer:
                return result
            while answer:
                position, _, length = struct.unpack("<QBH", answer[13:24])
                result.append(answer[24 : 24 + length].decode())
                answer = answer[24 + length :]


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "secret").write_text("secret")
    return tmp_path


@pytest.fixture
def shared(outside):
    shared = outside / "shared"
    (shared / "directory" / "below").mkdir(parents=True)
    (shared / "file").write_bytes(bytes(range(200)))
    (shared / "out").symlink_to("../secret")
    (shared / "absolute").symlink_to("/")
    os.mkfifo(shared / "fifo")
    return shared


@pytest.fixture
def device(shared):
    device = VirtioP9(FakeMemory(), shared, tag="share")
    yield device
    device.close()


@pytest.fixture(params=[0, PACKED], ids=["split", "packed"])
def client(request, device):
    return Client(device, request.param)


@pytest.fixture
def reader(shared):
    device = VirtioP9(FakeMemory(), shared, tag="share", read_only=True)
    yield Client(device)
    device.close()


def fails(name):
    return pytest.raises(Failed, match=f"^{getattr(errno, name)}$")


def test_the_tag(client):
    port = client.guest.port
    assert port.config(0, 2) == 5
    assert bytes(port.config(2 + index, 1) for index in range(5)) == b"share"


def test_reading(client):
    client.open("file")
    assert client.read() == bytes(range(200))
    assert client.read(150, 20) == bytes(range(150, 170))
    assert client.read(500) == b""
    with fails("EINVAL"):
        client.read(2**63)
    with fails("EBADF"):
        client.write(0, b"x")


def test_writing(client, shared):
    client.create("new", at=["directory"], mode=0o4711)
    assert client.write(3, b"content") == 7
    assert client.read() == b"\0\0\0content"
    client.ask(FSYNC, struct.pack("<II", FID, 1))
    path = shared / "directory" / "new"
    assert path.read_bytes() == b"\0\0\0content"
    assert path.stat().st_mode & 0o700 == 0o700
    client.create("new", at=["directory"], flags=os.O_WRONLY | os.O_TRUNC)
    assert path.read_bytes() == b""
    with fails("EEXIST"):
        client.create("new", at=["directory"], flags=os.O_WRONLY | os.O_EXCL)


def test_an_open_file_outlives_its_name(client, shared):
    client.open("file")
    client.ask(UNLINKAT, struct.pack("<I", ROOT) + text("file") + bytes(4))
    assert not (shared / "file").exists()
    assert client.read(0, 2) == b"\0\1"
    assert client.attributes()[3] == 0


@pytest.mark.parametrize("count", [60, 300, 4096])
def test_directories(client, shared, count):
    for number in range(30):
        (shared / "directory" / f"n{number}").touch()
    assert sorted(client.names("directory", count=count)) == sorted(
        [".", "..", "below", *(f"n{number}" for number in range(30))]
    )
    assert not client.walk("directory", "missing", "deeper")
    with fails("ENOENT"):
        client.walk("missing")
    with fails("ENOTDIR"):
        client.names("file")


def test_names(client, shared):
    client.walk("directory", new=OTHER)
    other, root = struct.pack("<I", OTHER), struct.pack("<I", ROOT)
    client.ask(MKDIR, other + text("made") + struct.pack("<II", 0o755, 0))
    client.ask(SYMLINK, other + text("link") + text("/etc/passwd") + bytes(4))
    client.ask(MKNOD, other + text("pipe") + struct.pack("<IIII", stat.S_IFIFO | 0o600, 0, 0, 0))
    client.walk("file")
    client.ask(LINK, other + struct.pack("<I", FID) + text("second"))
    client.ask(RENAMEAT, root + text("file") + other + text("moved"))
    directory = shared / "directory"
    assert (directory / "made").is_dir()
    assert os.readlink(directory / "link") == "/etc/passwd"
    assert (directory / "pipe").is_fifo()
    assert (directory / "moved").samefile(directory / "second")
    assert not (shared / "file").exists()
    client.walk("directory", "link")
    assert client.ask(READLINK, struct.pack("<I", FID)) == text("/etc/passwd")
    client.ask(UNLINKAT, other + text("made") + struct.pack("<I", 0x200))
    with fails("ENOTDIR"):
        client.ask(UNLINKAT, other + text("moved") + struct.pack("<I", 0x200))
    with fails("EISDIR"):
        client.ask(UNLINKAT, root + text("directory") + bytes(4))


def test_attributes(client, shared):
    client.walk("file")
    status = (shared / "file").stat()
    mode, user, group, links, size, times = client.attributes()
    assert (mode, user, group, links, size) == (status.st_mode, status.st_uid, status.st_gid, 1, 200)
    assert times[2] * 10**9 + times[3] == status.st_mtime_ns
    client.set_attributes(1 | 8 | 0x10 | 0x20 | 0x80 | 0x100, mode=0o640, size=5, times=(11, 12, 13, 14))
    status = (shared / "file").stat()
    assert (status.st_mode & 0o7777, status.st_size) == (0o640, 5)
    assert (status.st_atime_ns, status.st_mtime_ns) == (11 * 10**9 + 12, 13 * 10**9 + 14)
    client.set_attributes(2 | 4, user=os.getuid(), group=os.getgid())
    client.set_attributes(0x20)
    assert (shared / "file").stat().st_mtime_ns > 10**18
    with fails("EINVAL"):
        client.set_attributes(0x20 | 0x100, times=(0, 0, 2**64 - 1, 0))
    answer = client.ask(STATFS, struct.pack("<I", FID))
    assert struct.unpack("<I", answer[:4])[0] == 0x01021997


def test_links_lead_nowhere_on_the_host(client):
    """The guest's kernel follows links; the server never does."""
    for name in ("out", "absolute"):
        assert client.walk(name)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_TRUNC):
            with fails("ELOOP"):
                client.ask(LOPEN, struct.pack("<II", FID, flags))
        with fails("EOPNOTSUPP"):
            client.set_attributes(1, mode=0o777)
        with fails("EOPNOTSUPP"):
            client.set_attributes(8, size=0)
        with fails("ELOOP"):
            client.create(name, flags=os.O_WRONLY)
    assert not client.walk("absolute", "etc")


def test_no_name_leads_out(client, outside):
    assert client.walk("..", "..", "..")
    assert client.attributes() == client.attributes(ROOT)
    assert client.walk("directory", "below", "..", "..", "file")
    assert client.attributes()[4] == 200
    root = struct.pack("<I", ROOT)
    for name in ("../secret", "/etc", "", ".", "..", "a/b", "directory/below"):
        for kind, rest in (
            (MKDIR, bytes(8)),
            (SYMLINK, text("x") + bytes(4)),
            (UNLINKAT, bytes(4)),
            (MKNOD, struct.pack("<IIII", stat.S_IFREG, 0, 0, 0)),
            (RENAMEAT, root + text("x")),
        ):
            with fails("EINVAL"):
                client.ask(kind, root + text(name) + rest)
        if name != "..":
            with fails("EINVAL"):
                client.walk(name)
    with fails("EINVAL"):
        client.walk(b"a\0b")
    with fails("ENAMETOOLONG"):
        client.walk("n" * 256)
    assert (outside / "secret").read_text() == "secret"


def test_a_directory_that_was_moved_out_has_no_way_back(client, shared, outside):
    assert client.walk("directory", "below")
    (shared / "directory" / "below").rename(outside / "below")
    with fails("ENOENT"):
        client.ask(WALK, struct.pack("<IIH", FID, OTHER, 1) + text(".."))


def test_what_is_no_file_is_not_opened(client):
    client.walk("fifo")
    with fails("EACCES"):
        client.ask(LOPEN, struct.pack("<II", FID, os.O_RDWR))
    with fails("EPERM"):
        client.ask(
            MKNOD, struct.pack("<I", ROOT) + text("null") + struct.pack("<IIII", stat.S_IFCHR, 1, 3, 0)
        )


def test_read_only(reader, shared):
    reader.open("file")
    assert reader.read(0, 3) == b"\0\1\2"
    root, fid = struct.pack("<I", ROOT), struct.pack("<I", FID)
    with fails("EROFS"):
        reader.write(0, b"x")
    for kind, body in (
        (MKDIR, root + text("a") + bytes(8)),
        (SYMLINK, root + text("a") + text("b") + bytes(4)),
        (MKNOD, root + text("a") + struct.pack("<IIII", stat.S_IFREG, 0, 0, 0)),
        (LINK, root + fid + text("a")),
        (RENAMEAT, root + text("file") + root + text("a")),
        (UNLINKAT, root + text("file") + bytes(4)),
        (LCREATE, root + text("a") + bytes(12)),
        (SETATTR, fid + struct.pack("<I", 8) + bytes(52)),
    ):
        with fails("EROFS"):
            reader.ask(kind, body)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
        reader.walk("file")
        with fails("EROFS"):
            reader.ask(LOPEN, struct.pack("<II", FID, flags))
    assert (shared / "file").read_bytes() == bytes(range(200))


def test_a_single_file_is_all_that_is_seen_of_its_directory(shared):
    device = VirtioP9(FakeMemory(), shared, tag="share", only=b"file")
    client = Client(device)
    assert sorted(client.names()) == [".", "..", "file"]
    client.open("file", flags=os.O_RDWR)
    assert client.write(0, b"new") == 3
    assert (shared / "file").read_bytes().startswith(b"new")
    for name in ("directory", "out", "fifo"):
        with fails("ENOENT"):
            client.walk(name)
    with fails("EACCES"):
        client.create("another")
    with fails("EACCES"):
        client.ask(UNLINKAT, struct.pack("<I", ROOT) + text("file") + bytes(4))
    with fails("EACCES"):
        client.ask(RENAMEAT, struct.pack("<I", ROOT) + text("file") + struct.pack("<I", ROOT) + text("other"))
    with fails("EACCES"):
        client.set_attributes(1, mode=0o700, fid=ROOT)
    assert sorted(os.listdir(shared)) == ["absolute", "directory", "fifo", "file", "out"]
    device.close()


def test_fids(client):
    client.walk("file")
    with fails("EBADF"):
        client.ask(WALK, struct.pack("<IIH", ROOT, FID, 0))
    with fails("EBADF"):
        client.ask(WALK, struct.pack("<IIH", 77, 78, 0))
    assert client.walk("below", old=OTHER, new=OTHER) if client.walk("directory", new=OTHER) else False
    for kind in (STATFS, READLINK, CLUNK):
        with fails("EBADF"):
            client.ask(kind, struct.pack("<I", 99))
    with fails("EBADF"):
        client.read()
    assert client.ask(FLUSH, bytes(2)) == b""
    assert client.ask(LOCK, struct.pack("<IBIQQI", FID, 1, 0, 0, 0, 1) + text("me")) == b"\0"
    answer = client.ask(GETLOCK, struct.pack("<IBQQI", FID, 1, 5, 6, 7) + text("me"))
    assert answer == struct.pack("<BQQI", 2, 5, 6, 7) + text("me")
    with fails("EOPNOTSUPP"):
        client.ask(30, struct.pack("<II", FID, 5) + text("user.x"))
    with fails("EMSGSIZE"):
        client.ask(GETATTR, struct.pack("<IQ", ROOT, 0x7FF), room=0)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_no_descriptor_is_lost(shared):
    before = descriptors()
    device = VirtioP9(FakeMemory(), shared, tag="share")
    client = Client(device)
    for _ in range(20):
        client.open("file")
        client.create("made")
        client.names("directory")
        for wrong in (("missing",), ("..", "missing"), ("file", "x")):
            with contextlib.suppress(Failed):
                client.walk(*wrong)
        client.walk("file")
        with fails("EBADF"):
            client.ask(WALK, struct.pack("<IIH", ROOT, FID, 0))
    assert descriptors() <= before + 4
    client.version()
    assert descriptors() == before + 2
    client.guest.port.status = 0
    device.close()
    assert descriptors() == before


def test_fids_go_on_in_another_device(client, shared):
    client.open("file")
    client.walk("directory", "below", new=OTHER)
    state = client.guest.port.transport.save_state()
    (shared / "file").rename(shared / "directory" / "elsewhere")
    device = VirtioP9(client.guest.memory, shared, tag="share")
    other = Client.__new__(Client)
    other.tag, other.guest = 0, client.guest
    client.guest.port.transport.device = device
    client.guest.port.transport.load_state(state)
    with fails("EBADF"):
        other.read()
    assert stat.S_ISDIR(other.attributes(OTHER)[0])
    state = client.guest.port.transport.save_state()
    assert len(state["device"]["fields"]["fids"]) == 2
    device.close()


def test_there_must_be_a_directory(tmp_path):
    with pytest.raises(UsageError, match="cannot share"):
        VirtioP9(FakeMemory(), tmp_path / "missing", tag="x")


@pytest.mark.parametrize(("readable", "writable"), [([b"short"], [64]), ([bytes(7)], [10]), ([], [64])])
def test_messages_that_cannot_be_answered_break_the_device(device, readable, writable):
    client = Client(device)
    client.guest.queues[0].add(readable, writable)
    client.guest.port.notify(0)
    assert client.guest.port.status & NEEDS_RESET
    client.guest.start()
    client.version()


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_message_is_answered_and_nothing_outside_changes(outside, shared, data):
    device = VirtioP9(FakeMemory(), shared, tag="share")
    client = Client(device)
    numbers = st.integers(0, 3).map(lambda fid: struct.pack("<I", fid))
    names = st.sampled_from(
        ["file", "directory", "out", "absolute", "..", "fifo", "below", "../secret", "/", "new", "."]
    ).map(text)
    parts = (
        numbers
        | names
        | st.binary(max_size=8)
        | st.integers(0, 3).map(lambda count: struct.pack("<H", count))
    )
    kinds = st.sampled_from([*KINDS, WALK, WALK, 6, 255])
    for _ in range(data.draw(st.integers(1, 12))):
        body = data.draw(numbers) + b"".join(data.draw(st.lists(parts, max_size=5)))
        with contextlib.suppress(Failed):
            client.ask(data.draw(kinds), body)
    assert not client.guest.port.status & NEEDS_RESET
    device.close()
    assert (outside / "secret").read_text() == "secret"
    assert sorted(os.listdir(outside)) == ["secret", "shared"]
    client.guest.memory.check()
