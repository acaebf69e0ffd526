"""Every capability on every engine that claims it, with a guest that each engine can run."""

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from anyvirt.engines import engine_names, get
from anyvirt.engines.engine import Engine, World
from anyvirt.guest import Guest
from anyvirt.instance import Streams, TerminalSize
from anyvirt.linux.program import find_program
from anyvirt.pipes import GuestPipes
from anyvirt.running import Completed, run_guest


def pytest_generate_tests(metafunc):
    """A test marked with capabilities runs once for each engine that claims them all."""
    marker = metafunc.definition.get_closest_marker("capabilities")
    if marker is not None:
        worlds = [marker.kwargs["world"]] if "world" in marker.kwargs else list(World)
        able = [get(name) for name in engine_names() if get(name).capabilities >= set(marker.args)]
        engines = [engine for engine in able if engine.world in worlds]
        boots = metafunc.definition.get_closest_marker("fresh") is not None
        slow = (pytest.mark.slow, pytest.mark.timeout(400))
        names = [pytest.param(e.name, marks=slow if boots and _is_machine(e) else ()) for e in engines]
        metafunc.parametrize("subject", names, indirect=True)


def _is_machine(engine):
    return engine.world is World.MACHINE


@dataclass
class Subject:
    """An engine under test, with the words that start a shell it can run."""

    engine: Engine
    shell: tuple[str, ...]
    busybox: Path | None
    _cleanup: Callable

    def guest(self, script, **parts):
        shell = ("/bin/sh", "-c") if "rootfs" in parts else self.shell
        return Guest(command=(*shell, script), **parts)

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


@dataclass
class MachineSubject(Subject):
    """An engine of whole machines: what needs no machine of its own runs in one that all tests share."""

    root: Path
    kernel: Path
    shared: Callable
    is_fresh: bool

    def guest(self, script=None, **parts):
        words = (*self.shell, script) if script is not None else ()
        return Guest(command=words, **{"rootfs": self.root, "kernel": self.kernel, **parts})

    def run(self, script, *, input=None, timeout=60, **parts):
        if self.is_fresh or parts.keys() - {"env", "workdir"}:
            is_to_be_reached = timeout < 10
            limit = timeout if is_to_be_reached else BOOT + timeout
            return super().run(script, input=input, timeout=limit, **parts)
        with ExitStack() as stack:
            pipes = GuestPipes(stack, feed=input, capture=True, limit=None)
            began = time.monotonic()
            process = self.shared().exec((*self.shell, script), streams=pipes.guest_ends, **parts)
            stack.callback(process.close)
            pipes.started(process.end_fd)
            pipes.carry(began + timeout)
            status = process.wait(timeout)
            seconds = time.monotonic() - began
            out, errors = bytes(pipes.stdout), bytes(pipes.stderr)
            return Completed(self.engine.name, status, seconds, process.usage(), out, errors)

    def start(self, guest, terminal=None):
        """A session of a machine of its own where one is needed, else of the one that is shared."""
        plain = Guest(command=guest.command, rootfs=self.root, kernel=self.kernel)
        if self.is_fresh or guest != plain:
            guest = replace(guest, rootfs=guest.rootfs or self.root, kernel=self.kernel)
            return super().start(guest, terminal)
        session = Session(_Shared(self.shared()), guest, terminal)
        self._cleanup(session.close)
        return session


class _Shared:
    """Starts commands in a machine that is there, as an engine starts guests."""

    def __init__(self, instance):
        self._instance = instance

    def start(self, guest, streams, terminal):
        return self._instance.exec(guest.command, streams=streams, terminal=terminal)


BOOT = 100
"""Seconds that a machine may take to boot on a busy host."""


class Session:
    """A running guest and the host's end of its output."""

    def __init__(self, engine, guest, terminal):
        self.reader, writer = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        self._patience = BOOT if getattr(engine, "world", None) is World.MACHINE else 0
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

        source = self.reader if self.instance.terminal is None else self.instance.terminal
        deadline = time.monotonic() + seconds + self._patience
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
    if _is_machine(engine):
        return request.getfixturevalue("machine_subjects")(engine, request)
    shell, busybox = ("/bin/sh", "-c"), None
    if engine.refusal(find_program(Guest(command=["/bin/sh"]))) is not None:
        busybox = request.getfixturevalue("riscv64_busybox")
        shell = (str(busybox), "sh", "-c")
    return Subject(engine, shell, busybox, request.addfinalizer)


@pytest.fixture(scope="session")
def machine_subjects(riscv64_kernel, riscv64_busybox, tmp_path_factory):
    """Makes the subject of an engine of machines; each has one machine that all tests share."""
    (kernel,) = (riscv64_kernel / "boot").glob("vmlinux-*")
    root = busybox_root(tmp_path_factory.mktemp("machines") / "root", riscv64_busybox)
    running = {}

    def shared(engine):
        if engine.name not in running:
            guest = Guest(rootfs=root, kernel=kernel)
            running[engine.name] = engine.start(guest, Streams())
        return running[engine.name]

    def make(engine, request):
        return MachineSubject(
            engine,
            ("/bin/sh", "-c"),
            riscv64_busybox,
            request.addfinalizer,
            root,
            kernel,
            lambda: shared(engine),
            is_fresh=request.node.get_closest_marker("fresh") is not None,
        )

    yield make
    for instance in running.values():
        instance.close()


def busybox_root(root, busybox):
    """A root filesystem that is busybox and nothing else."""
    for directory in ("bin", "etc", "proc", "dev", "sys", "tmp", "mnt", "run"):
        (root / directory).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox, root / "bin/busybox")
    for name in APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/marker").write_text("this is the guest's own root\n")
    return root


@dataclass
class Web:
    """A server of one file, "content"."""

    port: int
    digest: str


@contextmanager
def serving(directory, address):
    content = os.urandom(3_000_000)
    (directory / "content").write_bytes(content)
    handler = partial(_Silent, directory=str(directory))
    with ThreadingHTTPServer((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Web(server.server_address[1], hashlib.sha256(content).hexdigest())
        finally:
            server.shutdown()
            thread.join()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A server on the host's loopback interface."""
    with serving(tmp_path, "127.0.0.1") as web:
        yield web


@pytest.fixture
def web_in(tmp_path):
    """Makes a server on all addresses, in the network namespace of whoever calls."""
    return lambda: serving(tmp_path, "0.0.0.0")


@pytest.fixture(scope="session")
def vsock_program(tmp_path_factory):
    """A static program for RISC-V that uses virtual sockets."""
    if shutil.which("riscv64-linux-gnu-gcc") is None:
        pytest.skip("needs riscv64-linux-gnu-gcc (package gcc-riscv64-linux-gnu)")
    path = tmp_path_factory.mktemp("programs") / "vsock"
    source = Path(__file__).parent / "programs/vsock.c"
    subprocess.run(["riscv64-linux-gnu-gcc", "-static", "-O1", "-o", path, source], check=True)
    return path


APPLETS = (
    "cat date dd dmesg free grep head hostname ip kill ls mkdir mknod mktemp mount nc nproc od ps rm seq sh "
    "sha256sum sleep sort stty sync tr true uname wc wget yes"
)


@pytest.fixture
def rootfs(request, subject, tmp_path):
    """A root filesystem that holds a shell and a few tools that the subject can run, and nothing else."""
    import re
    import subprocess

    root = tmp_path / "rootfs"
    if subject.busybox is not None:
        return busybox_root(root, subject.busybox)
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
