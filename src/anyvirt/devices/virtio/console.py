"""virtio-console: consoles and named channels between host and guest (VIRTIO 1.2, section 5.3).

Data is pulled on both sides, so that neither can flood the other: the device asks a port's backend for input
when the guest has room, and leaves output with the guest when the backend has none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, Protocol

from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.queue import QueueError
from anyvirt.devices.virtio.views import copy_in, copy_out, split, total

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.devices.bus import DirectMemory
    from anyvirt.devices.virtio.queue import Chain

MOST_INPUT = 1 << 16
"""Bytes that a backend is asked for at once."""
CONTROL_RECEIVE, CONTROL_TRANSMIT = 2, 3
"""Queues."""

_CONFIG = struct.Struct("<HHII")
_EMERGENCY_OFFSET = 8
_CONTROL = struct.Struct("<IHH")


class ConsoleFeature(IntFlag):
    """Section 5.3.3."""

    SIZE = 1 << 0
    MULTIPORT = 1 << 1
    EMERG_WRITE = 1 << 2


class Control(IntEnum):
    """Events of control messages (section 5.3.6.2)."""

    DEVICE_READY = 0
    DEVICE_ADD = 1
    DEVICE_REMOVE = 2
    PORT_READY = 3
    CONSOLE_PORT = 4
    RESIZE = 5
    PORT_OPEN = 6
    PORT_NAME = 7


class PortBackend(Protocol):
    """The host's end of a port."""

    def read(self, limit: int, /) -> bytes:
        """Up to `limit` bytes for the guest; none if there are none, and `Port.input_ready` later."""

    def write(self, data: memoryview, /) -> int:
        """Take what the guest sends and say how much of it; after less than all, `Port.output_ready`.

        The view is the guest's memory: what is kept has to be copied.
        """

    def guest_opened(self, is_open: bool, /) -> None:
        """Somebody in the guest opened the port, or the last one closed it."""


@dataclass(frozen=True, slots=True)
class PortSettings:
    """A port to be made."""

    backend: PortBackend
    name: str = ""
    """Seen as /dev/virtio-ports/NAME in Linux."""
    is_console: bool = False
    """Seen as /dev/hvcN in Linux."""


class Port:
    """One port of a device, as the host sees it."""

    def __init__(self, device: VirtioConsole, number: int, settings: PortSettings) -> None:
        self.number = number
        self.settings = settings
        self.is_open = False
        """Whether somebody in the guest has opened it."""
        self.is_connected = True
        """Whether somebody on the host has; output is lost otherwise."""
        self.output_done = 0
        """Bytes of the guest's next buffer that the backend has taken."""
        self._device = device
        self.receive_queue = 2 * number + 2 if number else 0
        self.transmit_queue = self.receive_queue + 1

    def input_ready(self) -> None:
        """The backend has input."""
        self._device.poll(self.receive_queue)

    def output_ready(self) -> None:
        """The backend has room."""
        self._device.poll(self.transmit_queue)

    def connect(self, is_connected: bool) -> None:
        """Tell the guest whether somebody is at the host's end."""
        self.is_connected = is_connected
        self._device.send_control(self.number, Control.PORT_OPEN, int(is_connected))
        self.output_ready()


class VirtioConsole(VirtioDevice):
    """See the module. Port 0 is a console for drivers that know of one port only."""

    device_id = DeviceId.CONSOLE
    pci_class = 0x078000

    def __init__(
        self,
        memory: DirectMemory,
        ports: Sequence[PortSettings],
        *,
        columns: int = 80,
        rows: int = 25,
        columns_first: bool = False,
        queue_size: int = 128,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Resize messages have rows first, as most Linux kernels read them; the standard says otherwise."""
        if not ports:
            raise ValueError("a console has at least one port")
        super().__init__(
            memory,
            queue_sizes=[queue_size] * (2 * len(ports) + 2),
            features=ConsoleFeature.SIZE | ConsoleFeature.MULTIPORT | ConsoleFeature.EMERG_WRITE,
            post=post,
        )
        self.ports = tuple(Port(self, number, settings) for number, settings in enumerate(ports))
        self._size = columns, rows
        self._columns_first = columns_first
        self._control: dict[tuple[int, int], bytes] = {}

    # The host's side ------------------------------------------------------------------------------------

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size, in characters."""
        self._size = min(max(columns, 0), 0xFFFF), min(max(rows, 0), 0xFFFF)
        self._send_size()
        self.change_config()

    def _send_size(self) -> None:
        first, second = self._size if self._columns_first else self._size[::-1]
        for port in self.ports:
            if port.settings.is_console:
                self.send_control(port.number, Control.RESIZE, 0, struct.pack("<HH", first, second))

    def send_control(self, port: int, event: Control, value: int, extra: bytes = b"") -> None:
        """Send a message, now or when the driver has room; a newer one of the same kind takes its place."""
        if not self.has(ConsoleFeature.MULTIPORT):
            return
        self._control.pop((port, event), None)
        self._control[port, event] = _CONTROL.pack(port, event, value) + extra
        self.poll(CONTROL_RECEIVE)

    # The driver's side ----------------------------------------------------------------------------------

    def config(self) -> bytes:
        """Section 5.3.4."""
        return _CONFIG.pack(*self._size, len(self.ports), 0)

    def config_written(self, offset: int, data: bytes) -> None:
        """A character without a queue, from a guest in trouble (section 5.3.4, emerg_wr)."""
        if offset == _EMERGENCY_OFFSET:
            self.ports[0].settings.backend.write(memoryview(data[:1]))

    def handle(self, index: int, chain: Chain) -> int | None:
        """See VirtioDevice.handle."""
        multiport = self.has(ConsoleFeature.MULTIPORT)
        if index >= CONTROL_RECEIVE and not multiport:
            raise QueueError(f"queue {index} of a console with one port")
        if index == CONTROL_RECEIVE:
            return self._receive_control(chain)
        if index == CONTROL_TRANSMIT:
            self._transmit_control(copy_out(chain.readable, _CONTROL.size))
            return 0
        port = self.ports[max(index // 2 - 1, 0)]
        if index % 2:
            return self._transmit(port, chain)
        return self._receive(port, chain) if port.is_open or not multiport else None

    @staticmethod
    def _receive(port: Port, chain: Chain) -> int | None:
        room = min(total(chain.writable), MOST_INPUT)
        if not room:
            return 0
        data = port.settings.backend.read(room)
        return copy_in(chain.writable, data) if data else None

    @staticmethod
    def _transmit(port: Port, chain: Chain) -> int | None:
        for view in split(chain.readable, port.output_done)[1]:
            taken = port.settings.backend.write(view) if port.is_connected else len(view)
            port.output_done += taken
            if taken < len(view):
                return None
        port.output_done = 0
        return 0

    def _receive_control(self, chain: Chain) -> int | None:
        if not self._control:
            return None
        key = next(iter(self._control))
        return copy_in(chain.writable, self._control.pop(key))

    def _transmit_control(self, message: bytes) -> None:
        """What the driver has to say; what makes no sense is ignored."""
        if len(message) < _CONTROL.size:
            return
        number, event, value = _CONTROL.unpack(message)
        if event == Control.DEVICE_READY and value == 1:
            for port in self.ports:
                self.send_control(port.number, Control.DEVICE_ADD, 1)
        elif number < len(self.ports):
            port = self.ports[number]
            if event == Control.PORT_READY and value == 1:
                self._introduce(port)
            elif event == Control.PORT_OPEN:
                self._open_port(port, bool(value))

    def _introduce(self, port: Port) -> None:
        """Section 5.3.6.2: what a port is, once the driver has it."""
        if port.settings.is_console:
            self.send_control(port.number, Control.CONSOLE_PORT, 1)
            self._send_size()
        if port.settings.name:
            self.send_control(port.number, Control.PORT_NAME, 1, port.settings.name.encode())
        if port.is_connected:
            self.send_control(port.number, Control.PORT_OPEN, 1)

    @staticmethod
    def _open_port(port: Port, is_open: bool) -> None:
        if port.is_open is not is_open:
            port.is_open = is_open
            port.settings.backend.guest_opened(is_open)
            if is_open:
                port.input_ready()

    # Life -----------------------------------------------------------------------------------------------

    def stopped(self) -> None:
        """See VirtioDevice.stopped: nobody in the guest has a port open."""
        self._control.clear()
        for port in self.ports:
            port.output_done = 0
            self._open_port(port, False)

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields. Backends are the host's and are not saved."""
        return {
            "size": list(self._size),
            "ports": [[port.is_open, port.output_done] for port in self.ports],
            "control": [[*key, message] for key, message in self._control.items()],
        }

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields."""
        columns, rows = (int(value) & 0xFFFF for value in fields["size"])
        ports = [(bool(is_open), int(done)) for is_open, done in fields["ports"]]
        control = {(int(port), int(event)): bytes(message) for port, event, message in fields["control"]}
        if len(ports) != len(self.ports):
            raise ValueError("another number of ports")
        self._size, self._control = (columns, rows), control
        for port, (is_open, done) in zip(self.ports, ports, strict=True):
            port.is_open, port.output_done = is_open, max(done, 0)
