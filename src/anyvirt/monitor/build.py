"""Making the machine of an order: kernel, initial file system, board, and the devices on its PCI bus."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyvirt.agent.protocol import (
    Address,
    Gateway,
    InterfaceUp,
    Link,
    MakeDirectory,
    Mount,
    MountFlag,
    Request,
    WriteFile,
)
from anyvirt.cpu.tiers import Tier
from anyvirt.devices.virtio.blk import VirtioBlk
from anyvirt.devices.virtio.console import PortSettings, VirtioConsole
from anyvirt.devices.virtio.net import VirtioNet
from anyvirt.devices.virtio.p9 import VirtioP9
from anyvirt.devices.virtio.rng import VirtioRng
from anyvirt.errors import GuestStartError
from anyvirt.isa.names import Isa
from anyvirt.machines.disks.board import ExpectedDisk, close_disks
from anyvirt.machines.disks.image import open_image
from anyvirt.machines.ending import Ending, Reason
from anyvirt.machines.machine import Machine
from anyvirt.machines.pci import attach_virtio_pci
from anyvirt.machines.posting import post_to
from anyvirt.monitor.agent_channel import AgentChannel
from anyvirt.monitor.machine import End, MountStep
from anyvirt.network.opening import open_link, random_mac
from anyvirt.network.vsock import VsockHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from anyvirt.agent.protocol import Run
    from anyvirt.boards.virt import VirtBoard
    from anyvirt.devices.bus import State
    from anyvirt.devices.disk import Disk
    from anyvirt.devices.virtio.device import VirtioDevice
    from anyvirt.images.kernels import Kernel
    from anyvirt.monitor.orders import DiskOrder, MachineOrder, NetworkOrder, Share
    from anyvirt.monitor.phases import Phases
    from anyvirt.network.link import Link as NetworkLink

    Attach: TypeAlias = Callable[[VirtBoard], object]

_COMMAND_LINE = "console=ttyS0 quiet panic=-1"
_ROOT_TAG = "root"
_PLACES = "/run/anyvirt"
"""Where shares of single files are mounted in the guest."""
_SHARE_OPTIONS = "trans=virtio,version=9p2000.L,msize=524288,cache=none"
"""Both sides see at once what the other does."""
_INTERFACE = "eth0"
_PATIENCE = 10.0
_TAIL_LINES = 6
_LOOK = 0.01
_FAREWELL = 2.0
"""Seconds in which gdb can be told."""
_UNLIMITED = 1 << 62
"""Instructions."""
_PORT_NAME = "org.anyvirt.agent"
_ENDS = {Reason.POWEROFF: End.OFF, Reason.RESET: End.RESET, Reason.FAILURE: End.FAILURE}


def build_machine(order: MachineOrder, phases: Phases, *, run: Run | None = None) -> VirtMachine:
    """The machine, ready to run. Raises UsageError, ImageError, PackageError and what devices raise.

    `run` is a command that the agent runs by itself once there is a root.
    """
    if order.snapshot is not None:
        return _restore_machine(order, Path(order.snapshot), phases)
    from anyvirt.images.kernels import find_kernel

    path = Path(order.kernel) if order.kernel is not None else None
    root = Path(order.root) if order.root not in (None, "/") else None
    kernel = find_kernel(Isa.RISCV64, path=path, rootfs=root)
    phases.mark("finding a kernel")

    def make(attach: Attach) -> Machine:
        with tempfile.TemporaryDirectory(prefix="anyvirt-") as directory:
            initrd = initial_file_system(order, kernel, run, Path(directory))
            phases.mark("initial file system")
            return Machine(
                kernel=kernel.path,
                initrd=initrd,
                append=f"{_COMMAND_LINE} {order.append}".rstrip(),
                memory=order.memory,
                cpus=order.cpus,
                tier=order.tier,
                seed=order.seed,
                attach=attach,
            )

    machine = VirtMachine(order, make)
    if not machine.is_counted:
        _prepare(machine.machine)
    phases.mark("machine")
    return machine


def _restore_machine(order: MachineOrder, directory: Path, phases: Phases) -> VirtMachine:
    """The machine of an instance that was written to a directory. Raises SnapshotError and UsageError."""
    from anyvirt.machines.snapshot import SnapshotError, read_snapshot
    from anyvirt.machines.standing import go_on

    snapshot = read_snapshot(directory)
    phases.mark("snapshot")
    try:
        instance = snapshot.instance or {}
        mac, to_guest = bytes(instance["mac"]), bytes(instance["to_guest"])
        conversation = dict(instance["conversation"])
    except (KeyError, TypeError, ValueError):
        raise SnapshotError(f"the snapshot {directory} is not one of a guest that an engine runs") from None
    machine = VirtMachine(
        order, lambda attach: go_on(Machine, snapshot, Tier(order.tier), attach), mac=mac, is_copy=True
    )
    machine.channel.resume(to_guest)
    machine.conversation = conversation
    _prepare(machine.machine)
    phases.mark("machine")
    return machine


def _prepare(machine: Machine) -> None:
    """Have what is compiled ahead of time while there is one thread yet: see `anyvirt.jit.apart`."""
    for hart in machine.harts:
        prepare = getattr(hart.cpu, "prepare", None)
        if prepare is not None:
            prepare()


class VirtMachine:
    """A machine on the board `virt`. Satisfies `anyvirt.monitor.machine.MonitoredMachine`."""

    def __init__(
        self,
        order: MachineOrder,
        make: Callable[[Attach], Machine],
        *,
        mac: bytes | None = None,
        is_copy: bool = False,
    ) -> None:
        """`make` is told how to put the devices of the order on a board, and returns a machine that has them:
        a new one, or the copy of another machine of the same order, which `mac` is the address of.
        """
        self.conversation: State | None = None
        """See MonitoredMachine."""
        self.channel = AgentChannel()
        self.shares = tuple(_mount_step(number, share) for number, share in enumerate(order.shares))
        self._disks = [_open_disk(disk, is_copy=is_copy) for disk in order.disks]
        self._directories: list[VirtioP9] = []
        self.mac = random_mac() if mac is None else mac
        """Of its network card."""
        self._link = _open(order.network, self.mac) if order.network is not None else None
        self.network = _network_steps(self._link)
        self._vsock = VsockHost(order.vsock) if order.vsock is not None else None
        self.is_lasting = not is_copy and any(not disk.read_only for disk in order.disks)
        self._order = order
        self._state = threading.Condition()
        self._is_wanted = True
        self._is_standing = False
        self._has_gdb, self._is_left = threading.Event(), threading.Event()
        self._machine = make(self._attach)

    @property
    def machine(self) -> Machine:
        """The machine itself, for whoever runs it without a monitor."""
        return self._machine

    def run(self, say: Callable[[str], object]) -> End:
        """See MonitoredMachine."""
        if self._order.gdb is not None:
            self._serve_gdb(self._order.gdb, say)
        while True:
            ending = self._advance()
            if ending.is_final:
                return _ENDS[ending.reason]

    def _advance(self, **options: Any) -> Ending:  # noqa: ANN401 - those of `Machine.run`
        """`Machine.run`, but while it is wanted that the machine stands."""
        with self._state:
            self._is_standing = True
            self._state.notify_all()
            self._state.wait_for(lambda: self._is_wanted)
            self._is_standing = False
        try:
            return self._machine.run(**options)
        finally:
            with self._state:
                self._is_standing = True
                self._state.notify_all()

    def _serve_gdb(self, address: str, say: Callable[[str], object]) -> None:
        """Let gdb have the machine until it leaves; if it kills the machine, this process is gone."""
        from anyvirt.debug.session import Departure
        from anyvirt.machines.debugging.gdb import serve_gdb

        with self._state:
            self._is_standing = True
        self._has_gdb.set()
        departure = serve_gdb(
            self._machine,
            address,
            on_listening=lambda address: say(f"anyvirt: waiting for gdb at {address}"),
            run=self._advance,
        )
        self._has_gdb.clear()
        self._is_left.set()
        if departure is Departure.KILLED:
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def is_counted(self) -> bool:
        """See MonitoredMachine."""
        return self._order.seed is not None

    def advance(self) -> End | None:
        """See MonitoredMachine."""
        ending = self._machine.run(instructions=_UNLIMITED, until=lambda: self.channel.has_data)
        if ending.reason is Reason.IDLE:
            raise GuestStartError(f"the guest waits for what never comes{self.console_tail()}")
        return _ENDS[ending.reason] if ending.is_final else None

    @property
    def instructions(self) -> int:
        """See MonitoredMachine."""
        return sum(hart.cpu.instructions for hart in self._machine.harts)

    def pause(self) -> None:
        """See MonitoredMachine."""
        with self._state:
            self._is_wanted = False
            # A stop in the moment before a run has begun has no effect on it.
            while not self._is_standing:
                self._machine.stop()
                self._state.wait(_LOOK)

    def resume(self) -> None:
        """See MonitoredMachine."""
        with self._state:
            self._is_wanted = True
            self._state.notify_all()

    def snapshot(self, directory: Path, *, compress: bool, conversation: Callable[[], State]) -> None:
        """See MonitoredMachine."""
        from anyvirt.machines.standing import write_machine

        def write() -> None:
            to_guest = self.channel.drain()
            instance = {
                "order": list(self._order.message()),
                "mac": self.mac,
                "to_guest": to_guest,
                "conversation": conversation(),
            }
            write_machine(self._machine, directory, compress=compress, instance=instance)

        self._machine.while_standing(write)

    def close(self) -> None:
        """See MonitoredMachine; gdb is told that it is over."""
        if self._has_gdb.is_set():
            self._machine.end(Ending(Reason.POWEROFF))
            self._is_left.wait(_FAREWELL)
        close_disks(self._machine.board)
        for directory in self._directories:
            directory.close()
        if self._link is not None:
            self._link.close()
        if self._vsock is not None:
            self._vsock.close()

    def console_tail(self) -> str:
        """See MonitoredMachine."""
        lines = [line.rstrip() for line in self._machine.console.text.splitlines() if line.strip()]
        return "; the last that its kernel said: " + " / ".join(lines[-_TAIL_LINES:]) if lines else ""

    # Devices --------------------------------------------------------------------------------------------

    def _attach(self, board: VirtBoard) -> None:
        memory = board.memory
        port = PortSettings(self.channel.backend, _PORT_NAME)
        console = VirtioConsole(memory, [PortSettings(_Nobody()), port])
        self.channel.connect(console.ports[1], board.lock)
        devices: list[VirtioDevice] = [console, VirtioRng(memory, source=self._entropy())]
        if self._order.root is not None:
            self._directories.append(VirtioP9(memory, self._order.root, tag=_ROOT_TAG, read_only=True))
        self._directories += [_share(board, number, share) for number, share in enumerate(self._order.shares)]
        devices += self._directories
        devices += [VirtioBlk(memory, disk) for disk in self._disks]
        post = partial(post_to, board)
        if self._vsock is not None:
            devices.append(self._vsock.attach(memory, post))
        if self._link is not None:
            card = VirtioNet(memory, self._link, mac=self.mac, mtu=self._link.mtu, post=post)
            self._link.connect(card, post)
            devices.append(card)
        attach_virtio_pci(board, devices)

    def _entropy(self) -> Callable[[int], bytes]:
        seed = self._order.seed
        return os.urandom if seed is None else random.Random(f"entropy {seed}").randbytes


def _open_disk(order: DiskOrder, *, is_copy: bool) -> Disk:
    """The disk of an order; that of a copy comes with it."""
    if is_copy:
        return ExpectedDisk(read_only=order.read_only)
    return open_image(Path(order.path), format=order.format, read_only=order.read_only)


class _Nobody:
    """Port 0, a console that nobody uses. Satisfies `anyvirt.devices.virtio.console.PortBackend`."""

    def read(self, limit: int, /) -> bytes:
        return b""

    def write(self, data: memoryview, /) -> int:
        return len(data)

    def guest_opened(self, is_open: bool, /) -> None:
        pass


def _share(board: VirtBoard, number: int, share: Share) -> VirtioP9:
    tag = f"share{number}"
    if os.path.isdir(share.source):
        return VirtioP9(board.memory, share.source, tag=tag, read_only=share.read_only)
    directory, name = os.path.split(share.source)
    return VirtioP9(board.memory, directory, tag=tag, read_only=share.read_only, only=os.fsencode(name))


def _mount_step(number: int, share: Share) -> MountStep:
    """A directory is mounted where it is wanted; a file's place is bound to it, or made a link to it."""
    flags = MountFlag.READ_ONLY if share.read_only else MountFlag(0)
    is_directory = os.path.isdir(share.source)
    place = share.target if is_directory else f"{_PLACES}/{number}"
    mount: list[Request] = [
        MakeDirectory(place),
        Mount(f"share{number}", place, "9p", flags, _SHARE_OPTIONS, wait=_PATIENCE),
    ]
    what = f"{share.source} at {share.target}"
    if is_directory:
        return MountStep([mount], what)
    file = f"{place}/{os.path.basename(share.source)}"
    bound: list[Request] = [Mount(file, share.target, "none", MountFlag.BIND)]
    linked: list[Request] = [MakeDirectory(os.path.dirname(share.target)), Link(file, share.target)]
    return MountStep([[*mount, *bound], linked], what)


def _open(network: NetworkOrder, mac: bytes) -> NetworkLink:
    return open_link(network.mode, network.tap, network.ports, mac)


def _network_steps(link: NetworkLink | None) -> list[Request]:
    """The interface is up; it has an address where the host says which, and the guest knows whom to ask."""
    if link is None:
        return []
    steps: list[Request] = [InterfaceUp(_INTERFACE)]
    told = link.assignment
    if told is not None:
        steps.append(Address(_INTERFACE, told.address))
    if told is not None and told.gateway is not None:
        steps.append(Gateway(_INTERFACE, told.gateway))
    if told is not None and told.resolver:
        steps += [MakeDirectory("/etc"), WriteFile("/etc/resolv.conf", told.resolver)]
    return steps


def initial_file_system(order: MachineOrder, kernel: Kernel, run: Run | None, directory: Path) -> Path:
    """The agent with what it needs to make the root, behind the user's archive if there is one."""
    from anyvirt.images.initramfs import Initramfs, SharedRoot, make_initramfs

    disks = ("virtio_blk",) if order.disks else ()
    shares = ("9pnet_virtio", "9p") if order.shares else ()
    network = ("virtio_net",) if order.network is not None else ()
    vsock = ("vmw_vsock_virtio_transport",) if order.vsock is not None else ()
    made = make_initramfs(
        Initramfs(
            Isa.RISCV64,
            kernel.modules,
            load=(*disks, *shares, *network, *vsock),
            load_if_present=("ext4",) if order.disks else (),
            root=SharedRoot(_ROOT_TAG) if order.root is not None else None,
            host_name=order.host_name,
            run=run,
        ),
        directory,
    )
    if order.initrd is None:
        return made
    content = Path(order.initrd).read_bytes()
    both = directory / "both"
    # The kernel unpacks archives one behind the other, each at a multiple of four bytes.
    both.write_bytes(content + bytes(-len(content) % 4) + made.read_bytes())
    return both
