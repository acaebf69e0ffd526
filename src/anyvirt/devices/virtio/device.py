"""What all virtio devices have in common, whatever their transport.

VIRTIO 1.2, chapters 2 and 3: negotiation of features, the device status, the configuration space, queues,
reset, and a saved state. A device is a subclass with its features, its configuration and what it does with
chains of buffers; a transport (`mmio`, `pci`) is how a driver reaches it. A driver that breaks the rules
leaves its device in need of a reset (section 2.1.2); nothing a driver does raises out of here.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from anyvirt.devices.bus import BusError, StateError, expect_version
from anyvirt.devices.virtio.packed_ring import MOST as MOST_PACKED
from anyvirt.devices.virtio.packed_ring import PackedRing
from anyvirt.devices.virtio.queue import QueueError, QueueSettings, Virtqueue
from anyvirt.devices.virtio.split_ring import SplitRing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyvirt.devices.bus import DirectMemory, State
    from anyvirt.devices.virtio.queue import Chain

STATE_VERSION = 2
ROUNDS = 16
"""How often a queue is served again at once because the driver goes on filling it."""


class DeviceId(IntEnum):
    """Kinds of devices (chapter 5)."""

    NETWORK = 1
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4
    BALLOON = 5
    P9 = 9
    GPU = 16
    INPUT = 18
    VSOCK = 19


class Status(IntFlag):
    """The device status (section 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


class Feature(IntFlag):
    """Feature bits that are not a device's own (chapter 6)."""

    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    VERSION_1 = 1 << 32
    RING_PACKED = 1 << 34
    RING_RESET = 1 << 40


_WORD = 0xFFFFFFFF
_OFFERED = (
    Feature.INDIRECT_DESC | Feature.EVENT_IDX | Feature.VERSION_1 | Feature.RING_PACKED | Feature.RING_RESET
)
_DRIVERS = Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK | Status.FEATURES_OK | Status.FAILED


class Transport(Protocol):
    """How a device reaches its driver."""

    def queue_used(self, index: int, /) -> None:
        """Send a used buffer notification (section 2.3) for a queue."""

    def config_changed(self) -> None:
        """Send a configuration change notification."""


class VirtioDevice:
    """See the module.

    A subclass overrides `handle`, which serves one chain, or `serve` where one thing takes several chains.
    """

    device_id: ClassVar[DeviceId]
    pci_class: ClassVar[int] = 0x00FF00
    """Class, subclass and programming interface on PCI."""

    def __init__(
        self,
        memory: DirectMemory,
        *,
        queue_sizes: Sequence[int],
        features: int = 0,
        post: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`features` are the device's own bits. `queue_sizes` are powers of two, the most a driver may use.

        With `post`, which calls a function later under the machine's lock, no driver can keep the device
        busy for ever; without, a queue is served until it is empty.
        """
        if any(not 0 < size <= MOST_PACKED or size & size - 1 for size in queue_sizes):
            raise ValueError("the size of a virtqueue is a power of two up to 32768")
        self.memory = memory
        self.offered = int(features | _OFFERED)
        """Features the device has."""
        self.accepted = 0
        """Features the driver understands, of these."""
        self.generation = 0
        """Changes whenever the device changes its configuration (section 2.5)."""
        self.settings = [QueueSettings(size, size) for size in queue_sizes]
        self.transport: Transport | None = None
        self.failure = ""
        """Why the device needs a reset."""
        self._rings: list[Virtqueue | None] = [None] * len(self.settings)
        self._serving: set[int] = set()
        self._wanted: set[int] = set()
        self._can_access_memory = True
        self.is_live = False
        """Whether the device may touch its queues."""
        self._set(Status(0))
        self._post = post
        self._owed: set[int] = set()
        """Queues that wait for their turn."""

    # What a device is made of ---------------------------------------------------------------------------

    def config(self) -> bytes:
        """The configuration space as it is now (section 2.5)."""
        return b""

    def config_written(self, offset: int, data: bytes) -> None:
        """The driver stores to the configuration space, perhaps outside of it."""

    def handle(self, index: int, chain: Chain) -> int | None:
        """Do what a chain asks for; how many bytes were stored in its writable buffers.

        None leaves it where it was, to be handled again after the next `poll` or notification: the host's
        side is not ready. May raise QueueError where no answer is possible.
        """
        raise QueueError(f"nobody serves queue {index}")

    def serve(self, index: int, queue: Virtqueue) -> None:
        """Use what is available in a queue. May raise QueueError and BusError.

        Called when the driver notifies, when it becomes ready, and by `poll`.
        """
        rounds = 0
        while rounds < ROUNDS or self._post is None:
            rounds += 1
            for _ in range(queue.size):
                chain = queue.pop()
                if chain is None:
                    break
                written = self.handle(index, chain)
                if written is None:
                    queue.put_back(chain)
                    self.publish(index, queue)
                    return
                queue.push(chain, written)
            self.publish(index, queue)
            if not queue.enable_notifications():
                return
        self.serve_later(index)

    def started(self) -> None:
        """The driver is ready."""

    def stopped(self) -> None:
        """There was a reset: whatever the device knew of its driver is void."""

    def save_fields(self) -> dict[str, Any]:
        """What the device itself has to save."""
        return {}

    def load_fields(self, fields: dict[str, Any]) -> None:
        """Go on from there. Raises KeyError, TypeError or ValueError, having changed nothing."""

    # What devices use -----------------------------------------------------------------------------------

    def has(self, feature: int) -> bool:
        """Whether a feature was negotiated."""
        return bool(self.accepted & feature)

    def _set(self, status: Status) -> None:
        self._status = status
        ready = Status.DRIVER_OK in status and Status.NEEDS_RESET not in status
        self.is_live = ready and self._can_access_memory

    def poll(self, index: int) -> None:
        """Serve a queue because something has happened on the host's side.

        A backend may call this while it is being asked: the queue is served once more afterwards.
        """
        ring = self._rings[index]
        if ring is None or not self.is_live:
            return
        self._wanted.add(index)
        if index in self._serving:
            return
        self._serving.add(index)
        try:
            while index in self._wanted and self.is_live:
                self._wanted.discard(index)
                self.serve(index, ring)
        except (QueueError, BusError) as error:
            self.fail(f"queue {index}: {error}")
        finally:
            self._serving.discard(index)
            self._wanted.discard(index)

    def serve_later(self, index: int) -> None:
        """Serve a queue again when others have had their turn. It takes a `post`."""
        assert self._post is not None
        if index not in self._owed:
            self._owed.add(index)
            self._post(partial(self._serve_owed, index))

    def _serve_owed(self, index: int) -> None:
        self._owed.discard(index)
        self.poll(index)

    def publish(self, index: int, queue: Virtqueue) -> None:
        """Show the driver what was used, with an interrupt if it wants one."""
        if queue.publish() and self.transport is not None:
            self.transport.queue_used(index)

    def change_config(self) -> None:
        """Tell the driver that the configuration is another now."""
        self.generation = (self.generation + 1) & 0xFF
        if self._status & Status.DRIVER_OK and self.transport is not None:
            self.transport.config_changed()

    def fail(self, reason: str) -> None:
        """Need a reset (section 2.1.2)."""
        self.failure = reason
        self._set(self._status | Status.NEEDS_RESET)
        if self._status & Status.DRIVER_OK and self.transport is not None:
            self.transport.config_changed()

    # What transports use --------------------------------------------------------------------------------

    @property
    def status(self) -> int:
        """The device status (section 2.1)."""
        return int(self._status)

    def set_status(self, value: int) -> None:
        """The driver takes a step (section 3.1.1); 0 is a reset. No step can be taken back."""
        if value == 0:
            self.reset()
            return
        new = Status(value & _DRIVERS) | self._status
        if new & Status.FEATURES_OK and not self._status & Status.FEATURES_OK and not self._agrees():
            new &= ~Status.FEATURES_OK
        if not new & Status.FEATURES_OK:
            new &= ~Status.DRIVER_OK
        starts = new & Status.DRIVER_OK and not self._status & Status.DRIVER_OK
        self._set(new)
        if starts:
            if new & Status.NEEDS_RESET:
                self.fail(self.failure)
            else:
                self._begin()

    def _agrees(self) -> bool:
        """Whether the device works with the features that the driver accepted (section 2.2).

        A driver has to accept VERSION_1, and a device may refuse one that does not (section 6.1). Those of
        small kernels never look beyond the first 32 features, so none is refused for that.
        """
        return not self.accepted & ~self.offered

    def _begin(self) -> None:
        self.started()
        for index in range(len(self._rings)):
            self.poll(index)

    def offered_word(self, select: int) -> int:
        """32 of the features the device has, counted from bit 32 * `select`."""
        return _word(self.offered, select)

    def accepted_word(self, select: int) -> int:
        """32 of the features the driver understands."""
        return _word(self.accepted, select)

    def accept_word(self, select: int, value: int) -> None:
        """The driver says which of 32 features it understands; after FEATURES_OK that is settled."""
        if select < 2 and not self._status & Status.FEATURES_OK:
            shift = 32 * select
            self.accepted = self.accepted & ~(_WORD << shift) | (value & _WORD) << shift

    def read_config(self, offset: int, size: int) -> int:
        """A value of the configuration space; 0 beyond its end."""
        return int.from_bytes(self.config()[offset : offset + size], "little")

    def write_config(self, offset: int, size: int, value: int) -> None:
        """The driver stores to the configuration space."""
        self.config_written(offset, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def is_enabled(self, index: int) -> bool:
        """Whether the driver has enabled a queue."""
        return self._rings[index] is not None

    def enable_queue(self, index: int) -> None:
        """Let the driver use a queue as it has set it up."""
        if self._rings[index] is not None or not self._status & Status.FEATURES_OK:
            return
        try:
            self._rings[index] = self._open(self.settings[index])
        except (QueueError, BusError) as error:
            self.fail(f"queue {index}: {error}")
            return
        self.poll(index)

    def _open(self, settings: QueueSettings) -> Virtqueue:
        if settings.size > settings.maximum:
            raise QueueError(f"{settings.size} descriptors where {settings.maximum} are possible")
        kind = PackedRing if self.has(Feature.RING_PACKED) else SplitRing
        return kind(
            self.memory,
            settings,
            indirect=self.has(Feature.INDIRECT_DESC),
            event_index=self.has(Feature.EVENT_IDX),
        )

    def reset_queue(self, index: int) -> None:
        """Forget a queue (section 2.6.1); it may be enabled again."""
        if self.has(Feature.RING_RESET):
            self._rings[index] = None
            self.settings[index].clear()

    def disable_queue(self, index: int) -> None:
        """Stop using a queue; its settings stay (section 4.2.2, QueueReady)."""
        self._rings[index] = None

    def notify(self, index: int) -> None:
        """The driver says that there is something in a queue (section 2.3)."""
        if 0 <= index < len(self._rings):
            self.poll(index)

    def allow_memory(self, allowed: bool) -> None:
        """Whether the device's bus lets it be a master; when it does again, queues are served."""
        resumes = allowed and not self._can_access_memory
        self._can_access_memory = allowed
        self._set(self._status)
        if resumes:
            for index in range(len(self._rings)):
                self.poll(index)

    # Life -----------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Become as after power-on (section 2.4)."""
        self._set(Status(0))
        self.accepted = 0
        self.failure = ""
        self._owed.clear()
        for index, settings in enumerate(self.settings):
            settings.clear()
            self._rings[index] = None
        self.stopped()

    def save_state(self) -> State:
        """See BusDevice.save_state. The memory is saved by others; the transport has a state of its own."""
        return {
            "version": STATE_VERSION,
            "device": int(self.device_id),
            "status": int(self._status),
            "accepted": self.accepted,
            "generation": self.generation,
            "failure": self.failure,
            "owed": sorted(self._owed),
            "queues": [
                {
                    "size": settings.size,
                    "areas": [settings.descriptors, settings.driver, settings.device],
                    "ring": None if ring is None else ring.save_state(),
                }
                for settings, ring in zip(self.settings, self._rings, strict=True)
            ],
            "fields": self.save_fields(),
        }

    def load_state(self, state: State, /) -> None:
        """See BusDevice.load_state; the memory must be there already."""
        expect_version(state, STATE_VERSION, f"a virtio device ({self.device_id.name.lower()})")
        before = self.accepted
        try:
            if state["device"] != self.device_id or int(state["accepted"]) & ~self.offered:
                raise StateError("the saved state is of another virtio device, or of one with other features")
            self.accepted = int(state["accepted"])
            pairs = zip(self.settings, state["queues"], strict=True)
            queues = [self._load_queue(old.maximum, saved) for old, saved in pairs]
            status, failure = Status(int(state["status"])), str(state["failure"])
            generation = int(state["generation"])
            owed = [range(len(queues))[int(index)] for index in state["owed"]]
            self.load_fields(dict(state["fields"]))
        except (LookupError, TypeError, ValueError, QueueError, BusError) as error:
            self.accepted = before
            raise StateError(f"the saved state of a virtio device is damaged ({error})") from None
        except StateError:
            self.accepted = before
            raise
        self.settings = [settings for settings, _ in queues]
        self._rings = [ring for _, ring in queues]
        self._set(status)
        self.failure, self.generation = failure, generation
        self._owed.clear()
        for index in owed if self._post is not None else ():
            self.serve_later(index)

    def _load_queue(self, maximum: int, saved: dict[str, Any]) -> tuple[QueueSettings, Virtqueue | None]:
        descriptors, driver, device = map(int, saved["areas"])
        settings = QueueSettings(maximum, int(saved["size"]), descriptors, driver, device)
        if saved["ring"] is None:
            return settings, None
        ring = self._open(settings)
        ring.load_state(saved["ring"])
        return settings, ring


def _word(features: int, select: int) -> int:
    return features >> 32 * select & _WORD if select < 2 else 0
