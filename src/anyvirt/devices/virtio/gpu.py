"""virtio-gpu: a display adapter, in two dimensions (VIRTIO 1.2, section 5.7).

The driver draws in memory of its own, has parts of that copied into resources on the host, and says which
resource each output (scanout) shows. What an output shows can be looked at at any time: a flush only tells
that somebody should.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any, NamedTuple

from anyvirt.devices.bus import BusError
from anyvirt.devices.edid import MOST_PIXELS as MOST_DISPLAY_PIXELS
from anyvirt.devices.edid import edid
from anyvirt.devices.surface import PIXEL_SIZE, PixelFormat, Rectangle
from anyvirt.devices.virtio.device import DeviceId, VirtioDevice
from anyvirt.devices.virtio.gpu_resources import (
    ENTRY_COST,
    MOST_ENTRIES,
    Resource,
    Resources,
    has_possible_size,
    resource_cost,
)
from anyvirt.devices.virtio.queue import QueueError
from anyvirt.devices.virtio.views import copy_in, copy_out, split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.devices.bus import DirectMemory, State
    from anyvirt.devices.virtio.queue import Chain, Virtqueue
    from anyvirt.devices.virtio.views import Views

MOST_SCANOUTS = 16
"""Section 5.7.4."""
CURSOR_SIDE = 64
"""Pixels of a cursor in each direction (section 5.7.6.6)."""
LEAST_PIXELS = 16
"""Of a display in each direction."""
MOST_WORK = 16 << 20
"""Bytes copied, or as much work as that, after which others have their turn."""
_STEP_WORK = 8 << 10
"""What one request, one row or one piece of backing is worth, in bytes that could be copied meanwhile."""


class GpuFeature(IntFlag):
    """Section 5.7.3."""

    VIRGL = 1 << 0
    EDID = 1 << 1
    RESOURCE_UUID = 1 << 2
    RESOURCE_BLOB = 1 << 3
    CONTEXT_INIT = 1 << 4


class GpuQueue(IntEnum):
    """Section 5.7.2."""

    CONTROL = 0
    CURSOR = 1


class Command(IntEnum):
    """Types of requests (section 5.7.6.7): those of two dimensions."""

    GET_DISPLAY_INFO = 0x0100
    RESOURCE_CREATE_2D = 0x0101
    RESOURCE_UNREF = 0x0102
    SET_SCANOUT = 0x0103
    RESOURCE_FLUSH = 0x0104
    TRANSFER_TO_HOST_2D = 0x0105
    RESOURCE_ATTACH_BACKING = 0x0106
    RESOURCE_DETACH_BACKING = 0x0107
    GET_EDID = 0x010A
    UPDATE_CURSOR = 0x0300
    MOVE_CURSOR = 0x0301


class Response(IntEnum):
    """Types of responses (section 5.7.6.7)."""

    OK_NODATA = 0x1100
    OK_DISPLAY_INFO = 0x1101
    OK_EDID = 0x1104
    ERR_UNSPEC = 0x1200
    ERR_OUT_OF_MEMORY = 0x1201
    ERR_INVALID_SCANOUT_ID = 0x1202
    ERR_INVALID_RESOURCE_ID = 0x1203
    ERR_INVALID_CONTEXT_ID = 0x1204
    ERR_INVALID_PARAMETER = 0x1205


FORMATS = {
    1: PixelFormat.BGRA,
    2: PixelFormat.BGRX,
    3: PixelFormat.ARGB,
    4: PixelFormat.XRGB,
    67: PixelFormat.RGBA,
    68: PixelFormat.XBGR,
    121: PixelFormat.ABGR,
    134: PixelFormat.RGBX,
}
"""By the numbers of section 5.7.6.8."""

_FENCE = 1
"""Flag of a request: its answer tells which one it is of."""
_EVENT_DISPLAY = 1
_EVENTS_CLEAR_OFFSET = 4
_EDID_ROOM = 1024
_CONFIG = struct.Struct("<4I")
_HEADER = struct.Struct("<IIQIB3x")
_NOTHING = struct.Struct("")
_NUMBER = struct.Struct("<I4x")
_TWO_NUMBERS = struct.Struct("<II")
_CREATE = struct.Struct("<4I")
_SCANOUT = struct.Struct("<6I")
_FLUSH = struct.Struct("<5I4x")
_TRANSFER = struct.Struct("<4IQI4x")
_ENTRY = struct.Struct("<QI4x")
_CURSOR = struct.Struct("<Iii4x3I4x")
_DISPLAY_INFO = struct.Struct("<6I")
_NO_PART = Rectangle(0, 0, 0, 0)
_LARGEST = 40
"""Bytes of a request behind its header, but for entries of backing."""


class _RefusedError(Exception):
    """A request is answered by an error."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.name)
        self.response = response


class _Request(NamedTuple):
    """What a driver asks for."""

    values: tuple[int, ...]
    rest: Views
    """What is behind the values."""


class _Kind(NamedTuple):
    """A kind of request: on which queue, what is behind the header, who answers it, and by which type."""

    queue: GpuQueue
    layout: struct.Struct
    answer: Callable[[_Request], bytes]
    response: Response = Response.OK_NODATA


class Frame(NamedTuple):
    """What an output shows at one moment; rows follow each other without gaps."""

    width: int
    height: int
    format: PixelFormat
    pixels: bytes


@dataclass
class Cursor:
    """The cursor on an output; x and y are where its hot spot is."""

    x: int = 0
    y: int = 0
    hot_x: int = 0
    """Where in the image the hot spot is."""
    hot_y: int = 0
    format: PixelFormat = PixelFormat.BGRA
    pixels: bytes = b""
    """The image, 64 pixels in each direction; empty if there is none to be seen."""


@dataclass
class Scanout:
    """One output and what it shows."""

    width: int
    """The resolution that the driver is asked for."""
    height: int
    number: int = 0
    """Of the resource that is shown; 0 for nothing."""
    part: Rectangle = _NO_PART
    """What of the resource is shown."""
    cursor: Cursor | None = None

    def turn_off(self) -> None:
        """Show nothing."""
        self.number, self.part = 0, _NO_PART


class VirtioGpu(VirtioDevice):
    """See the module."""

    device_id = DeviceId.GPU
    pci_class = 0x038000
    """A display controller without VGA compatibility (section 5.7.7)."""

    def __init__(
        self,
        memory: DirectMemory,
        displays: Sequence[tuple[int, int]],
        *,
        on_update: Callable[[], object] | None = None,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`displays` are the resolutions of 1 to 16 outputs; `on_update` is called when one shows more."""
        if not 0 < len(displays) <= MOST_SCANOUTS:
            raise ValueError(f"a display adapter has 1 to {MOST_SCANOUTS} outputs")
        for size in displays:
            _check_display(*size)
        super().__init__(memory, queue_sizes=[256, 16], features=GpuFeature.EDID, post=post)
        self.scanouts = [Scanout(width, height) for width, height in displays]
        self.updates = 0
        """How often what is shown may have become another."""
        self.resources = Resources(memory)
        self._on_update = on_update
        self._events = 0
        self._work = 0
        control, cursor = GpuQueue.CONTROL, GpuQueue.CURSOR
        self._kinds: dict[int, _Kind] = {
            Command.GET_DISPLAY_INFO: _Kind(control, _NOTHING, self._display_info, Response.OK_DISPLAY_INFO),
            Command.GET_EDID: _Kind(control, _NUMBER, self._edid, Response.OK_EDID),
            Command.RESOURCE_CREATE_2D: _Kind(control, _CREATE, self._create),
            Command.RESOURCE_UNREF: _Kind(control, _NUMBER, self._unref),
            Command.SET_SCANOUT: _Kind(control, _SCANOUT, self._set_scanout),
            Command.RESOURCE_FLUSH: _Kind(control, _FLUSH, self._flush),
            Command.TRANSFER_TO_HOST_2D: _Kind(control, _TRANSFER, self._transfer),
            Command.RESOURCE_ATTACH_BACKING: _Kind(control, _TWO_NUMBERS, self._attach),
            Command.RESOURCE_DETACH_BACKING: _Kind(control, _NUMBER, self._detach),
            Command.UPDATE_CURSOR: _Kind(cursor, _CURSOR, self._update_cursor),
            Command.MOVE_CURSOR: _Kind(cursor, _CURSOR, self._move_cursor),
        }

    # The host's side ------------------------------------------------------------------------------------

    def frame(self, index: int = 0) -> Frame | None:
        """What an output shows now; None if it shows nothing."""
        scanout = self.scanouts[index]
        resource = self.resources.get(scanout.number)
        if resource is None:
            return None
        surface, part = resource.surface, scanout.part
        return Frame(part.width, part.height, surface.format, surface.copy(part))

    def resize(self, width: int, height: int, index: int = 0) -> None:
        """Ask the driver for another resolution. Raises ValueError."""
        _check_display(width, height)
        self.scanouts[index].width, self.scanouts[index].height = width, height
        self._events |= _EVENT_DISPLAY
        self.change_config()

    def _updated(self) -> None:
        self.updates += 1
        if self._on_update is not None:
            self._on_update()

    # The driver's side ----------------------------------------------------------------------------------

    def config(self) -> bytes:
        """Section 5.7.4."""
        return _CONFIG.pack(self._events, 0, len(self.scanouts), 0)

    def config_written(self, offset: int, data: bytes) -> None:
        """The driver has seen events."""
        if offset == _EVENTS_CLEAR_OFFSET:
            self._events &= ~int.from_bytes(data[:4], "little")

    def serve(self, index: int, queue: Virtqueue) -> None:
        """See VirtioDevice.serve."""
        self._work = 0
        super().serve(index, queue)

    def handle(self, index: int, chain: Chain) -> int | None:
        """See VirtioDevice.handle; section 5.7.6.7."""
        if self._work > MOST_WORK and self._post is not None:
            self.serve_later(index)
            return None
        self._work += _STEP_WORK
        request = copy_out(chain.readable, _HEADER.size + _LARGEST)
        if len(request) < _HEADER.size:
            raise QueueError("a request to a display adapter without its header")
        command, flags, fence, context, _ = _HEADER.unpack_from(request)
        try:
            response, body = self._answer(index, command, request, chain.readable)
        except _RefusedError as refusal:
            response, body = refusal.response, b""
        if not flags & _FENCE:
            fence = context = 0
        header = _HEADER.pack(response, flags & _FENCE, fence, context, 0)
        return copy_in(chain.writable, header + body)

    def _answer(self, index: int, command: int, request: bytes, views: Views) -> tuple[Response, bytes]:
        kind = self._kinds.get(command)
        if kind is None or kind.queue != index:
            raise _RefusedError(Response.ERR_UNSPEC)
        end = _HEADER.size + kind.layout.size
        if len(request) < end:
            raise _RefusedError(Response.ERR_INVALID_PARAMETER)
        values = kind.layout.unpack_from(request, _HEADER.size)
        return kind.response, kind.answer(_Request(values, split(views, end)[1]))

    # Requests; sections 5.7.6.8 and 5.7.6.10 ------------------------------------------------------------

    def _resource(self, number: int) -> Resource:
        resource = self.resources.get(number)
        if resource is None:
            raise _RefusedError(Response.ERR_INVALID_RESOURCE_ID)
        return resource

    def _scanout(self, number: int) -> Scanout:
        if number >= len(self.scanouts):
            raise _RefusedError(Response.ERR_INVALID_SCANOUT_ID)
        return self.scanouts[number]

    def _display_info(self, request: _Request) -> bytes:
        """Displays stand beside each other, from the left to the right."""
        found, x = bytearray(), 0
        for scanout in self.scanouts:
            found += _DISPLAY_INFO.pack(x, 0, scanout.width, scanout.height, 1, 0)
            x += scanout.width
        return bytes(found).ljust(MOST_SCANOUTS * _DISPLAY_INFO.size, b"\0")

    def _edid(self, request: _Request) -> bytes:
        scanout = self._scanout(request.values[0])
        if not self.has(GpuFeature.EDID):
            raise _RefusedError(Response.ERR_UNSPEC)
        block = edid(scanout.width, scanout.height)
        return _NUMBER.pack(len(block)) + block.ljust(_EDID_ROOM, b"\0")

    def _create(self, request: _Request) -> bytes:
        number, format, width, height = request.values
        if not number or self.resources.get(number) is not None:
            raise _RefusedError(Response.ERR_INVALID_RESOURCE_ID)
        if format not in FORMATS or not has_possible_size(width, height):
            raise _RefusedError(Response.ERR_INVALID_PARAMETER)
        if not self.resources.has_room(resource_cost(width, height)):
            raise _RefusedError(Response.ERR_OUT_OF_MEMORY)
        self.resources.create(number, width, height, FORMATS[format])
        return b""

    def _unref(self, request: _Request) -> bytes:
        (number,) = request.values
        self._resource(number)
        self.resources.remove(number)
        for scanout in self.scanouts:
            if scanout.number == number:
                scanout.turn_off()
                self._updated()
        return b""

    def _set_scanout(self, request: _Request) -> bytes:
        *corners, index, number = request.values
        scanout = self._scanout(index)
        if number:
            surface, part = self._resource(number).surface, Rectangle(*corners)
            if not part.is_within(surface.width, surface.height):
                raise _RefusedError(Response.ERR_INVALID_PARAMETER)
            scanout.number, scanout.part = number, part
        else:
            scanout.turn_off()
        self._updated()
        return b""

    def _flush(self, request: _Request) -> bytes:
        *corners, number = request.values
        surface = self._resource(number).surface
        if not Rectangle(*corners).is_within(surface.width, surface.height):
            raise _RefusedError(Response.ERR_INVALID_PARAMETER)
        if any(scanout.number == number for scanout in self.scanouts):
            self._updated()
        return b""

    def _transfer(self, request: _Request) -> bytes:
        *corners, offset, number = request.values
        resource, part = self._resource(number), Rectangle(*corners)
        surface = resource.surface
        if resource.backing is None:
            raise _RefusedError(Response.ERR_UNSPEC)
        if not part.is_within(surface.width, surface.height):
            raise _RefusedError(Response.ERR_INVALID_PARAMETER)
        self._work += part.width * part.height * PIXEL_SIZE + part.height * _STEP_WORK
        if not resource.transfer(resource.backing, part, offset):
            raise _RefusedError(Response.ERR_INVALID_PARAMETER)
        return b""

    def _attach(self, request: _Request) -> bytes:
        number, count = request.values
        resource = self._resource(number)
        if resource.backing is not None:
            raise _RefusedError(Response.ERR_UNSPEC)
        if not 0 < count <= MOST_ENTRIES:
            raise _RefusedError(Response.ERR_INVALID_PARAMETER)
        content = copy_out(request.rest, count * _ENTRY.size)
        if len(content) < count * _ENTRY.size:
            raise _RefusedError(Response.ERR_INVALID_PARAMETER)
        if not self.resources.has_room(count * ENTRY_COST):
            raise _RefusedError(Response.ERR_OUT_OF_MEMORY)
        self._work += count * _STEP_WORK
        try:
            self.resources.attach(resource, list(_ENTRY.iter_unpack(content)))
        except BusError:
            raise _RefusedError(Response.ERR_INVALID_PARAMETER) from None
        return b""

    def _detach(self, request: _Request) -> bytes:
        resource = self._resource(request.values[0])
        if resource.backing is None:
            raise _RefusedError(Response.ERR_UNSPEC)
        self.resources.detach(resource)
        return b""

    def _update_cursor(self, request: _Request) -> bytes:
        index, x, y, number, hot_x, hot_y = request.values
        scanout = self._scanout(index)
        if not number:
            scanout.cursor = None
        else:
            surface = self._resource(number).surface
            if (surface.width, surface.height) != (CURSOR_SIDE, CURSOR_SIDE):
                raise _RefusedError(Response.ERR_INVALID_PARAMETER)
            if max(hot_x, hot_y) >= CURSOR_SIDE:
                raise _RefusedError(Response.ERR_INVALID_PARAMETER)
            scanout.cursor = Cursor(x, y, hot_x, hot_y, surface.format, bytes(surface.pixels))
        self._updated()
        return b""

    def _move_cursor(self, request: _Request) -> bytes:
        index, x, y, *_ = request.values
        cursor = self._scanout(index).cursor
        if cursor is not None:
            cursor.x, cursor.y = x, y
            self._updated()
        return b""

    # Life -----------------------------------------------------------------------------------------------

    def stopped(self) -> None:
        """See VirtioDevice.stopped: the outputs are dark, and what the driver has made is gone."""
        self.resources.clear()
        self._events = 0
        for scanout in self.scanouts:
            scanout.turn_off()
            scanout.cursor = None
        self._updated()

    def save_fields(self) -> dict[str, Any]:
        """See VirtioDevice.save_fields."""
        return {
            "events": self._events,
            "updates": self.updates,
            "resources": self.resources.save_state(),
            "scanouts": [_save_scanout(scanout) for scanout in self.scanouts],
        }

    def load_fields(self, fields: dict[str, Any]) -> None:
        """See VirtioDevice.load_fields."""
        resources = Resources.load_state(self.memory, fields["resources"])
        scanouts = [_load_scanout(saved, resources) for saved in fields["scanouts"]]
        events, updates = int(fields["events"]), int(fields["updates"])
        if len(scanouts) != len(self.scanouts):
            raise ValueError("another number of outputs")
        self.resources, self.scanouts = resources, scanouts
        self._events, self.updates = events & _EVENT_DISPLAY, updates


def _check_display(width: int, height: int) -> None:
    if not all(LEAST_PIXELS <= pixels <= MOST_DISPLAY_PIXELS for pixels in (width, height)):
        raise ValueError(
            f"a display has {LEAST_PIXELS} to {MOST_DISPLAY_PIXELS} pixels in each direction, "
            f"not {width} x {height}"
        )


def _save_scanout(scanout: Scanout) -> State:
    part, cursor = scanout.part, scanout.cursor
    return {
        "size": [scanout.width, scanout.height],
        "number": scanout.number,
        "part": [part.x, part.y, part.width, part.height],
        "cursor": None
        if cursor is None
        else [cursor.x, cursor.y, cursor.hot_x, cursor.hot_y, str(cursor.format), cursor.pixels],
    }


def _load_scanout(saved: State, resources: Resources) -> Scanout:
    width, height = map(int, saved["size"])
    _check_display(width, height)
    scanout = Scanout(width, height, int(saved["number"]), Rectangle(*map(int, saved["part"])))
    if scanout.number:
        resource = resources.get(scanout.number)
        if resource is None or not scanout.part.is_within(resource.surface.width, resource.surface.height):
            raise ValueError("an output shows what is not there")
    if saved["cursor"] is not None:
        *numbers, format, pixels = saved["cursor"]
        x, y, hot_x, hot_y = map(int, numbers)
        if not isinstance(pixels, bytes) or len(pixels) != PIXEL_SIZE * CURSOR_SIDE**2:
            raise ValueError("a cursor of another size")
        if not all(0 <= spot < CURSOR_SIDE for spot in (hot_x, hot_y)):
            raise ValueError("a cursor's hot spot is outside of it")
        scanout.cursor = Cursor(x, y, hot_x, hot_y, PixelFormat(format), pixels)
    return scanout
