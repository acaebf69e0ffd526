"""Every capability on every engine that claims it, with a guest that each engine can run."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import Engine
from anyvirt.guest import Guest
from anyvirt.instance import Streams, TerminalSize
from anyvirt.linux.program import find_program
from anyvirt.running import run_guest


def pytest_generate_tests(metafunc):
    """A test marked with capabilities runs once for each engine that claims them all."""
    marker = metafunc.definition.get_closest_marker("capabilities")
    if marker is not None:
        names = [name for name in engine_names() if get(name).capabilities >= set(marker.args)]
        metafunc.parametrize("subject", names, indirect=True)


@dataclass
class Subject:
    """An engine under test, with the words that start a shell it can run."""

    engine: Engine
    shell: tuple[str, ...]
    busybox: Path | None
    _cleanup: Callable

    def guest(self, script, **parts):
        return Guest(command=(*self.shell, script), **parts)

    def run(self, script, *, input=None, timeout=60, **parts):
        """Run a shell script as a guest to its end, with its output captured."""
        return run_guest(
            self.guest(script, **parts),
            on=self.engine.name,
            input=input,
            capture_output=True,
            timeout=timeout,
        )

    def start(self, guest, terminal=None):
        """Start a guest whose output the returned Session reads."""
        session = Session(self.engine, guest, terminal)
        self._cleanup(session.close)
        return session


class Session:
    """A running guest and the host's end of its output."""

    def __init__(self, engine, guest, terminal):
        self.reader, writer = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            size = TerminalSize(*terminal) if terminal else None
            self.instance = engine.start(guest, Streams(null, writer, writer), size)
        finally:
            os.close(writer)
            os.close(null)
        self.seen = b""

    def expect(self, text, seconds=30):
        """Read until `text` was shown."""
        import select
        import time

        source = self.reader if self.instance.terminal is None else self.instance.terminal
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            ready = select.select([source], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} was not shown; what was shown: {self.seen!r}"
            try:
                data = os.read(source, 4096)
            except OSError:
                data = b""
            assert data, f"the guest ended before it showed {text!r}; what was shown: {self.seen!r}"
            self.seen += data
        before, _, self.seen = self.seen.partition(text)
        return before

    def drain(self, seconds):
        """Read what is shown for `seconds`."""
        import time

        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self.silent(left):
                os.read(self.reader, 1 << 16)

    def silent(self, seconds):
        """Whether nothing is shown for `seconds`."""
        import select

        return not select.select([self.reader], [], [], seconds)[0]

    def close(self):
        self.instance.close()
        if self.reader is not None:
            os.close(self.reader)
            self.reader = None


@pytest.fixture
def subject(request):
    """The engine under test; skipped, with its own reason, where it does not work on this host."""
    engine = get(request.param)
    availability = engine.probe()
    if not availability.available:
        pytest.skip(f"engine {engine.name} is not available: {availability.reason}")
    shell, busybox = ("/bin/sh", "-c"), None
    if engine.refusal(find_program(Guest(command=["/bin/sh"]))) is not None:
        busybox = request.getfixturevalue("riscv64_busybox")
        shell = (str(busybox), "sh", "-c")
    return Subject(engine, shell, busybox, request.addfinalizer)


@pytest.fixture
def rootfs(tmp_path):
    """A root filesystem that holds the host's shell, a few tools and their libraries, and nothing else."""
    import re
    import subprocess

    root = tmp_path / "rootfs"
    for directory in ("bin", "etc", "proc", "dev", "sys", "tmp"):
        (root / directory).mkdir(parents=True)
    files = set()
    for name in ("sh", "cat", "ls", "hostname", "mkdir", "sleep"):
        program = shutil.which(name)
        shutil.copy(program, root / "bin" / name)
        libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= set(re.findall(r"(/\S+) \(0x", libraries))
    for name in files:
        target = root / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target)
    (root / "etc/marker").write_text("this is the guest's own root\n")
    return root
