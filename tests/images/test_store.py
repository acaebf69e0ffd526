"""The store: entries are complete or not there, whoever makes them and however that ends."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from anyvirt.errors import UsageError
from anyvirt.images.errors import ImageError
from anyvirt.images.store import Progress, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def left_over(store):
    return [path for path in store.directory.iterdir() if path.name.startswith(".new-")]


def test_an_entry_is_made_once(store):
    calls = []

    def make(file):
        calls.append(1)
        file.write(b"content")

    for _ in range(2):
        assert store.file("kernels/6.1/vmlinux", make).read_bytes() == b"content"
    assert calls == [1]
    assert not left_over(store)


def test_directories_too(store):
    path = store.make_directory("roots/a", lambda place: (place / "file").write_text("x"))
    assert (path / "file").read_text() == "x"
    assert store.find("roots/a") == path
    store.remove("roots/a")
    store.remove("roots/a")
    assert store.find("roots/a") is None
    assert not left_over(store)


def test_what_fails_leaves_nothing(store):
    def fail(place):
        (place / "half").write_text("x")
        raise ImageError("no")

    with pytest.raises(ImageError):
        store.make_directory("a", fail)
    assert store.find("a") is None
    assert not left_over(store)


def test_what_is_killed_leaves_no_entry(store):
    program = (
        "import sys, time, pathlib\nfrom anyvirt.images.store import Store\n"
        "def make(file):\n    file.write(b'half'); file.flush(); print('in', flush=True); time.sleep(1000)\n"
        "Store(pathlib.Path(sys.argv[1])).file('a', make)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, store.directory], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"in\n"
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    assert store.find("a") is None
    assert store.file("a", lambda file: file.write(b"whole")).read_bytes() == b"whole"


def test_whoever_wants_the_same_waits_for_it(store):
    made, results = [], []

    def make(file):
        made.append(1)
        time.sleep(0.1)
        file.write(b"x")

    # A store of its own each, as another process would have.
    threads = [
        threading.Thread(target=lambda: results.append(Store(store.directory).file("a", make).read_bytes()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, results) == ([1], [b"x"] * 4)


def test_blobs_are_named_by_their_content(store):
    digest = hashlib.sha256(b"data").hexdigest()
    path = store.blob(io.BytesIO(b"data"))
    assert path.name == digest
    assert store.blob(io.BytesIO(b"not read"), digest) == path
    with pytest.raises(ImageError, match="the layer is not what was expected"):
        store.blob(io.BytesIO(b"other"), hashlib.sha256(b"x").hexdigest(), what="the layer")
    with pytest.raises(UsageError):
        store.blob(io.BytesIO(), "../../etc")
    assert not left_over(store)


@pytest.mark.parametrize("key", ["", "/etc", "../x", "a/../b", ".hidden", "a//b", "a b", "a/.b"])
def test_keys_stay_inside(store, key):
    with pytest.raises(UsageError):
        store.find(key)


def test_progress_is_quiet_in_a_pipe_and_shown_on_a_terminal(capsys, monkeypatch):
    with Progress("fetching", 100) as progress:
        progress.advance(50)
    assert capsys.readouterr() == ("", "")
    reader, writer = os.openpty()
    with open(writer, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("anyvirt.images.store._REFRESH", 0)
        with Progress("fetching", 100) as progress:
            progress.advance(50)
        shown = b""
        while not (b"fetching 50 %" in shown and shown.endswith(b"\r\x1b[K")):  # a pty may give it in parts
            shown += os.read(reader, 1000)
    os.close(reader)
