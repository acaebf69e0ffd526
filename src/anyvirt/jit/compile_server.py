"""The compiler of regions as a process of its own: `python -m anyvirt.jit.compile_server DIRECTORY NAME`.

LLVM is large, takes a while to import and holds locks, so the processes that run guests do not load it. One
server works for all guests of a user at the same version of this package; it starts with the first region
that is wanted and ends when nobody has been connected for a few seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.jit.cache import version
from anyvirt.jit.compile_protocol import (
    ProtocolError,
    Reply,
    Request,
    Unpacker,
    pack,
    unpack_request,
)
from anyvirt.jit.guest_code import code_digest
from anyvirt.jit.region_cache import CACHE, RegionCache, StoredRegion

if TYPE_CHECKING:
    from anyvirt.jit.region_template import Templates

PAGE_SIZE = 4096
LINGER = 3.0
"""Seconds without a client after which the server ends."""
RETIREMENT = 16384
"""Regions after which the server ends once nobody waits: what LLVM does not give back goes with it."""
_PRUNE_EVERY = 256
_MOST_CLIENTS = 512
_MOST_WANTED = 64
"""Requests of a client that may wait."""
_MOST_PAGES = 1 << 14
"""Pages of a client that are kept, of code and of what has been decoded."""
_MOST_JUMPS = 1 << 16
"""Indirect jumps of a client whose targets are kept."""
_CREDENTIALS = struct.Struct("3i")


@dataclass
class GuestPages:
    """Code that a guest's process has sent, and what it has said of it."""

    pages: dict[int, bytes] = field(default_factory=dict)
    decoded: dict[int, bytes] = field(default_factory=dict)
    """For each page and each place where an instruction can start, whether the interpreter has been there."""
    indirect: dict[int, list[int]] = field(default_factory=dict)
    """Seen targets by the address of the indirect jump."""

    def has_run(self, pc: int) -> bool:
        """Whether an instruction may have been executed, as far as is known."""
        page = self.decoded.get(pc & -PAGE_SIZE)
        return page is None or page[pc % PAGE_SIZE * len(page) // PAGE_SIZE] != 0

    def read_code(self, address: int, length: int) -> bytes | None:
        """Code that was sent; None if some of it was not."""
        page, offset = address & -PAGE_SIZE, address % PAGE_SIZE
        first = self.pages.get(page)
        if first is None:
            return None
        if offset + length <= PAGE_SIZE:
            return first[offset : offset + length]
        rest = self.read_code(page + PAGE_SIZE, offset + length - PAGE_SIZE)
        return None if rest is None else first[offset:] + rest

    def accept(self, request: Request, payload: bytes) -> None:
        """Keep what came with a request. Raises ProtocolError."""
        code, marks = PAGE_SIZE * len(request.pages), request.marks * len(request.visited)
        if len(payload) != code + marks:
            raise ProtocolError("the code is not that of the pages named")
        if any(page % PAGE_SIZE for page in (*request.pages, *request.visited)):
            raise ProtocolError("a page that does not begin at the address of one")
        if len(self.pages) + len(self.decoded) > _MOST_PAGES:
            raise ProtocolError("too much at a time")
        for position, page in enumerate(request.pages):
            self.pages[page] = payload[position * PAGE_SIZE : (position + 1) * PAGE_SIZE]
        for position, page in enumerate(request.visited):
            start = code + position * request.marks
            self.decoded[page] = payload[start : start + request.marks]
        if len(self.indirect) + len(request.indirect) > _MOST_JUMPS:
            self.indirect.clear()
        self.indirect.update(request.indirect)


@dataclass
class Client:
    """A guest's process: what it wants compiled, and the code it has sent."""

    connection: socket.socket
    unpacker: Unpacker = field(default_factory=Unpacker)
    unsent: bytearray = field(default_factory=bytearray)
    """Answers that it has not taken yet; it gets no others before."""
    wanted: deque[tuple[Request, GuestPages]] = field(default_factory=deque)
    code: GuestPages = field(default_factory=GuestPages)
    """Of its address space."""

    def accept(self, request: Request, payload: bytes) -> None:
        """Keep a request and the code that came with it. Raises ProtocolError."""
        if len(self.wanted) == _MOST_WANTED:
            raise ProtocolError("too much at a time")
        code = GuestPages() if request.paged else self.code
        code.accept(request, payload)
        self.wanted.append((request, code))


@cache
def _templates(isa: str, memory: str, rounding: int, alone: bool) -> Templates:
    from anyvirt.jit.ahead import instruction_set
    from anyvirt.jit.handlers import Features
    from anyvirt.jit.host_layout import has_segment
    from anyvirt.jit.llvm import host_has
    from anyvirt.jit.region_template import Templates

    features = Features(counted=False, fma=host_has("fma"), memory=memory)
    return Templates(instruction_set(isa), features, rounding, segment=has_segment(), alone=alone)


def compile_image(code: GuestPages, request: Request) -> tuple[Reply, bytes]:
    """Find, write and compile the region of a request."""
    from anyvirt.jit.region import RegionFunction
    from anyvirt.jit.region_compiler import compile_region
    from anyvirt.jit.region_paged import PagedRegionFunction
    from anyvirt.jit.region_plan import Hints, discover

    templates = _templates(request.isa, request.memory, request.rounding, request.alone)
    if request.paged is not (templates.isa.system is not None):
        return Reply(request.number, request.entry), b""
    hints = Hints(
        code.indirect | request.indirect,
        frozenset(request.barriers),
        code.has_run,
        frozenset(_possible_entries(request)),
    )
    plan = discover(templates, code.read_code, request.entry, hints, request.limit)
    if not plan.steps or (request.paged and not PagedRegionFunction.can_begin(plan)):
        return Reply(request.number, request.entry), b""
    function: RegionFunction
    if request.paged:
        function = PagedRegionFunction(templates.isa, plan, counted=request.counted)
    else:
        function = RegionFunction(
            templates.isa,
            plan,
            counted=request.counted,
            memory=request.memory,
            memory_size=request.memory_size,
        )
    image = compile_region(function)
    ranges = plan.ranges()
    digest = code_digest(ranges, code.read_code)
    reply = Reply(
        request.number, request.entry, ranges, digest, len(plan.steps), plan.is_cut, list(plan.others)
    )
    return reply, image


def _possible_entries(request: Request) -> list[int]:
    """Arrivals that can be entries of one region: in a machine each page has records of its own."""
    if request.memory == "flat":
        return request.arrivals
    return [pc for pc in request.arrivals if pc // PAGE_SIZE == request.entry // PAGE_SIZE]


def compile_request(code: GuestPages, request: Request, directory: Path) -> tuple[Reply, bytes]:
    """Compile a region and keep it on disk."""
    reply, image = compile_image(code, request)
    page = request.entry & -PAGE_SIZE
    if image:
        region = StoredRegion(
            reply.entry, reply.ranges, reply.digest, image, reply.cut, reply.others, reply.instructions
        )
        RegionCache(directory, request.kind).store(page, code.pages[page], region)
    return reply, image


class Server:
    """Serves clients one region at a time, in turn."""

    def __init__(self, listener: socket.socket, directory: Path) -> None:
        self._listener = listener
        self._directory = directory
        self._compiled = 0
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._clients: deque[Client] = deque()

    def serve(self) -> None:
        """Work until nobody has been there for a while."""
        alone_since = time.monotonic()
        while True:
            if self._clients:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > LINGER:
                return
            busy = any(client.wanted and not client.unsent for client in self._clients)
            if self._compiled >= RETIREMENT and not any(one.wanted or one.unsent for one in self._clients):
                return
            for key, events in self._selector.select(0 if busy else LINGER / 2):
                if key.data is None:
                    self._admit()
                elif events & selectors.EVENT_WRITE:
                    self._send(key.data)
                else:
                    self._listen(key.data)
            self._work()

    def _admit(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        if len(self._clients) == _MOST_CLIENTS or peer_user(connection) != os.geteuid():
            connection.close()
            return
        connection.setblocking(False)
        client = Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _listen(self, client: Client) -> None:
        try:
            data = client.connection.recv(1 << 20)
            if not data:
                self._dismiss(client)
                return
            for header, payload in client.unpacker.feed(data):
                client.accept(unpack_request(header), payload)
        except BlockingIOError:
            return
        except (OSError, ProtocolError):
            self._dismiss(client)

    def _send(self, client: Client) -> None:
        """Send as much as there is room for, and the rest when there is."""
        try:
            sent = client.connection.send(client.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._dismiss(client)
            return
        del client.unsent[:sent]
        writing = selectors.EVENT_WRITE if client.unsent else 0
        self._selector.modify(client.connection, selectors.EVENT_READ | writing, client)

    def _dismiss(self, client: Client) -> None:
        self._selector.unregister(client.connection)
        client.connection.close()
        self._clients.remove(client)

    def _work(self) -> None:
        """Compile one region of the client whose turn it is."""
        for _ in range(len(self._clients)):
            client = self._clients[0]
            self._clients.rotate(-1)
            if client.wanted and not client.unsent:
                request, code = client.wanted.popleft()
                reply, image = self._compile(code, request)
                client.unsent += pack(reply, image)
                self._send(client)
                return

    def _compile(self, code: GuestPages, request: Request) -> tuple[Reply, bytes]:
        """A region that cannot be compiled is none: a mistake of ours must not end the guest."""
        try:
            if self._compiled % _PRUNE_EVERY == 0:
                RegionCache(self._directory, request.kind).prune()
            self._compiled += 1
            return compile_request(code, request, self._directory)
        except Exception as error:
            if os.environ.get("ANYVIRT_DEBUG"):
                raise
            print(f"anyvirt: region at {request.entry:#x}: {error}", file=sys.stderr)
            return Reply(request.number, request.entry), b""


def peer_user(connection: socket.socket) -> int:
    """The user whom the other side of a local connection belonged to when it was made."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(credentials)[1])


def listen(directory: str, name: str) -> socket.socket | None:
    """The socket that clients find; None if another server has it."""
    import fcntl

    folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    lock = os.open(f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return None
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{folder}/{name}")
    listener.listen()
    return listener


def _shed_inheritance() -> None:
    """Undo what a guest may have done to the process that started us, as far as that can be undone."""
    import resource
    import signal

    limits = (getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    os.chdir("/")
    for limit in limits:
        with contextlib.suppress(ValueError, OSError):
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (hard, hard))


def main(directory: str, name: str) -> None:
    """Serve on a socket called `name` in `directory`."""
    # It is started without any open file.
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR)
    directory = os.path.abspath(directory)
    _shed_inheritance()
    # What is imported later would be of another version if the package has been replaced by then.
    importlib.import_module("anyvirt.jit.region_compiler")
    listener = listen(directory, name) if name.endswith(version()) else None
    if listener is not None:
        Server(listener, Path(directory, CACHE)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
