"""A small client of the remote serial protocol, and a target of plain lists, for tests."""

import select
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from anyvirt.debug.connection import Connection
from anyvirt.debug.registers import describe
from anyvirt.debug.server import serve
from anyvirt.debug.session import Departure
from anyvirt.debug.target import Ended, Object, Stopped, TargetError
from anyvirt.jit.ahead import instruction_set


def checksum(body):
    return b"%02x" % (sum(body) % 256)


def packet(body):
    return b"$" + body + b"#" + checksum(body)


def decode(body):
    """Undo escapes and run lengths, one byte at a time as the manual has them."""
    result, position = bytearray(), 0
    while position < len(body):
        byte = body[position]
        if byte == ord("}"):
            position += 1
            result.append(body[position] ^ 0x20)
        elif byte == ord("*"):
            position += 1
            result += result[-1:] * (body[position] - 29)
        else:
            result.append(byte)
        position += 1
    return bytes(result)


class Client:
    """The debugger's side of a line."""

    def __init__(self, peer, *, acknowledges=True):
        self.peer = peer
        self.peer.settimeout(100)
        self.acknowledges = acknowledges
        self._buffer = b""

    def byte(self):
        while not self._buffer:
            data = self.peer.recv(4096)
            if not data:
                raise EOFError
            self._buffer += data
        first, self._buffer = self._buffer[:1], self._buffer[1:]
        return first

    def send(self, body):
        self.peer.sendall(packet(body))

    def reply(self):
        while (byte := self.byte()) in (b"+", b"-"):
            pass
        assert byte == b"$"
        body = b""
        while (byte := self.byte()) != b"#":
            body += byte
        assert self.byte() + self.byte() == checksum(body)
        if self.acknowledges:
            with suppress(BrokenPipeError):
                self.peer.sendall(b"+")
        return decode(body)

    def ask(self, body):
        self.send(body)
        return self.reply()


@dataclass
class FakeTarget:
    """Two threads of a RISC-V hart each, 4 KiB of memory at 0x1000, and a script of what happens."""

    events: list = field(default_factory=list)
    attached: bool = True
    keeps_history: bool = False
    description = describe(instruction_set("riscv64"))

    def __post_init__(self):
        self.registers = {thread: [0] * len(self.description.registers) for thread in (1, 2)}
        self.memory = bytearray(0x1000)
        self.points = set()
        self.plans = []
        self.left = None
        self.objects = {Object.AUXILIARY_VECTOR: bytes(range(256)) * 300}

    def threads(self):
        return list(self.registers)

    def thread_name(self, thread):
        return f"hart {thread}"

    def read_register(self, thread, number):
        return self.registers[thread][number]

    def write_register(self, thread, number, value):
        self.registers[thread][number] = value

    def read_memory(self, thread, address, length):
        if not 0x1000 <= address < 0x2000:
            raise TargetError("nothing there")
        return bytes(self.memory[address - 0x1000 : address - 0x1000 + length])

    def write_memory(self, thread, address, data):
        if not 0x1000 <= address <= 0x2000 - len(data):
            raise TargetError("nothing there")
        self.memory[address - 0x1000 : address - 0x1000 + len(data)] = data

    def packet(self, thread, packet):
        return b"one's own" if packet.startswith(b"qown") else b""

    def add_point(self, kind, address, length):
        self.points.add((kind, address, length))

    def remove_point(self, kind, address, length):
        self.points.discard((kind, address, length))

    def resume(self, plan, wake):
        self.plans.append(plan)
        if not self.events:
            return Ended(status=0)
        event = self.events.pop(0)
        if isinstance(event, Exception):
            raise event
        if event == "forever":
            select.select([wake], [], [], 10)
            return None
        return event

    def detach(self):
        self.left = Departure.DETACHED

    def kill(self):
        self.left = Departure.KILLED


class Served:
    """A target behind a line, served by a thread: a context manager that gives the client."""

    def __init__(self, target):
        self.target = target
        self.outcome = None

    def __enter__(self):
        ours, theirs = socket.socketpair()
        self.client = Client(theirs)
        self._thread = threading.Thread(target=self._serve, args=(Connection(ours),))
        self._thread.start()
        return self.client

    def _serve(self, connection):
        self.outcome = serve(self.target, connection)

    def __exit__(self, *_):
        self.client.peer.close()
        self._thread.join(100)
        assert not self._thread.is_alive()


STOPPED = Stopped(thread=1, signal=5)
