"""A guest's network card with a driver of the tests, on a cable that leads to the host."""

import queue
import struct
import time

from tests.devices.virtio.driver import BASE, FakeMemory, Guest

from anyvirt.devices.virtio.net import HEADER, VirtioNet

MAC = bytes.fromhex("525400123456")
MERGED = 1 << 15
PATIENCE = 30
"""Seconds for what happens within milliseconds unless the host is very busy."""
_SIZE = 8 << 20


class Station:
    """Sends and receives frames; the machine's thread is the caller's."""

    def __init__(self, link, *, buffers=64):
        self.link = link
        self.posted = queue.Queue()
        memory = FakeMemory(_SIZE)
        self.card = VirtioNet(memory, link, mac=MAC, post=self.posted.put)
        self.guest = Guest(self.card, features=MERGED)
        self.guest.allocator.end = BASE + _SIZE
        self.frames = []
        self.offer(buffers)
        link.connect(self.card, self.posted.put)

    def offer(self, count):
        """Make room for frames in buffers of 2 KiB."""
        for _ in range(count):
            self.guest.queues[0].add([], [2048])
        self.guest.port.notify(0)

    def send(self, frame):
        """Offer a frame to the card; whether it was taken at once."""
        self.guest.queues[1].add([bytes(HEADER.size), frame])
        self.guest.port.notify(1)
        return bool(self.guest.queues[1].used())

    def turn(self, seconds=PATIENCE):
        """Do what was posted next; the frames that came of it are in `frames`."""
        self.posted.get(timeout=seconds)()
        self.collect()

    def collect(self):
        """Take what has arrived, and make room for more."""
        while used := [buffers.answer()[:count] for buffers, count in self.guest.queues[0].used()]:
            self.offer(len(used))
            while used:
                count = HEADER.unpack(used[0][: HEADER.size])[-1]
                self.frames.append(b"".join(used[:count])[HEADER.size :])
                del used[:count]

    def wait_for(self, condition, seconds=PATIENCE):
        """Go on until there is a frame for which a condition holds; the frame."""
        deadline = time.monotonic() + seconds
        while True:
            for frame in self.frames:
                if condition(frame):
                    return frame
            self.frames.clear()
            self.turn(deadline - time.monotonic())

    def close(self):
        self.link.close()


def checksum(data):
    """Of the internet (RFC 1071)."""
    words = struct.unpack(f">{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source, destination, ports, data, *, to=b"\xff" * 6):
    """An Ethernet frame with a UDP datagram; addresses have four bytes."""
    payload = struct.pack(">HHHH", *ports, 8 + len(data), 0) + data
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, 17, 0, source, destination)
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return to + MAC + b"\x08\x00" + head + payload


def as_datagram(frame):
    """(source, destination, ports, data) of a frame with a UDP datagram, None of any other."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    length = struct.unpack(">H", frame[38:40])[0]
    return frame[26:30], frame[30:34], struct.unpack(">HH", frame[34:38]), frame[42 : 34 + length]


def arp_request(source, wanted):
    addresses = MAC + source + bytes(6) + wanted
    return b"\xff" * 6 + MAC + bytes.fromhex("0806 0001 0800 06 04 0001") + addresses


def arp_answer(frame, wanted):
    """The hardware address in an answer for `wanted`, or None."""
    is_answer = frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x02" and frame[28:32] == wanted
    return frame[22:28] if is_answer else None


def arp_reply(request):
    """The guest's answer to a question for its address."""
    return (
        request[6:12]
        + MAC
        + request[12:20]
        + b"\0\x02"
        + MAC
        + request[38:42]
        + request[22:28]
        + request[28:32]
    )
