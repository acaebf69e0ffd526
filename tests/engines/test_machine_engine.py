"""What engines of machines make of a guest before any machine is there."""

import sys

import pytest

from anyvirt.engines import get
from anyvirt.engines.engine import Availability
from anyvirt.errors import NotExecutableError, UsageError
from anyvirt.guest import Disk, DiskFormat, Guest, Limits, Mount, Network, Published
from anyvirt.images.debian import PackageError
from anyvirt.instance import TerminalSize
from anyvirt.monitor.orders import CommandOrder, MachineOrder


@pytest.fixture(params=["translator", "interpreter"])
def engine(request):
    return get(request.param)


def test_an_order_comes_through_a_channel_as_it_is(engine, tmp_path):
    (tmp_path / "disk").touch()
    guest = Guest(
        rootfs=tmp_path,
        hostname="box",
        limits=Limits(memory=1 << 30, cpus=3),
        mounts=[Mount(tmp_path, "/data", read_only=True)],
        disks=[Disk(tmp_path / "disk", DiskFormat.QCOW2)],
        append="a b",
        network=Network.parse("user"),
        vsock=tmp_path / "socket",
        published=[Published(8080, 80), Published(53, 53, "0.0.0.0", "udp")],
    )
    order = engine.machine_order(guest)
    assert (order.tier, order.cpus, order.memory) == (engine.tier, 3, 1 << 30)
    assert (order.root, order.host_name, order.append) == (str(tmp_path), "box", "a b")
    assert order.disks[0].format == "qcow2"
    assert order.vsock == str(tmp_path / "socket")
    assert order.network.mode == "user"
    assert [port.guest for port in order.network.ports] == [80, 53]
    assert MachineOrder.of(order.message()) == order
    for none in (None, Network.parse("none")):
        order = engine.machine_order(Guest(rootfs=tmp_path, network=none))
        assert order.network is None
        assert MachineOrder.of(order.message()) == order


def test_numbers_and_places_come_through_it_too(engine):
    order = engine.machine_order(Guest(command=["true"], seed=5, gdb=":1234"))
    assert (order.seed, order.gdb, order.network, order.vsock) == (5, ":1234", None, None)
    assert MachineOrder.of(order.message()) == order


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"network": Network.parse("user")}, "has no network"),
        ({"vsock": "socket"}, "has no virtual sockets"),
        ({"gdb": ":1234"}, "is not debugged by gdb"),
    ],
)
def test_what_is_the_same_in_each_run_is_alone(engine, tmp_path, parts, complaint):
    for name in ("kernel", "initrd"):
        (tmp_path / name).touch()
    made = {"kernel": tmp_path / "kernel", "initrd": tmp_path / "initrd"}
    with pytest.raises(UsageError, match=f"a deterministic guest {complaint}"):
        engine.check(Guest(command=["true"], seed=1, **made, **parts))


def test_commands_have_a_clean_environment(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    guest = Guest(command=["true"], rootfs=tmp_path)
    order = engine.command_order(
        guest, ("true",), env={"A": "1"}, workdir=None, terminal=TerminalSize(10, 20)
    )
    assert dict(order.environment).keys() == {"PATH", "HOME", "TERM", "A"}
    assert (order.directory, order.terminal) == ("/", (10, 20))
    assert CommandOrder.of(order.message()) == order


def test_programs_of_other_cpus_are_refused(engine, monkeypatch):
    monkeypatch.setattr(type(engine), "probe", lambda self: Availability(True))
    with pytest.raises(NotExecutableError, match=r"program for x86_64|is a program for"):
        engine.check(Guest(command=[sys.executable]))


def test_without_a_kernel_anywhere_it_says_what_to_do(engine, tmp_path, monkeypatch):
    def none(*args, **options):
        raise PackageError("this machine has no apt-get")

    monkeypatch.setenv("ANYVIRT_STATE", str(tmp_path / "state"))
    monkeypatch.setattr("anyvirt.images.debian.Archive", none)
    availability = engine.probe()
    assert not availability.available
    assert "no kernel for riscv64 in the store" in availability.reason
    assert "--kernel" in availability.remedy
    kernel = tmp_path / "kernel"
    kernel.touch()
    assert engine.probe_for(Guest(kernel=kernel)).available


def test_a_kernel_in_the_store_is_found_without_asking_anybody(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("ANYVIRT_STATE", str(tmp_path))
    for version in ("6.9.1", "6.10.1"):
        boot = tmp_path / f"images/kernels/linux-image-{version}-riscv64/root/boot"
        boot.mkdir(parents=True)
        (boot / f"vmlinux-{version}").touch()
    assert engine.probe().details["kernel"] == "vmlinux-6.10.1"


def test_probing_imports_no_compiler():
    import subprocess

    script = (
        "import sys; from anyvirt.engines import get; get('translator').probe(); get('interpreter').probe()\n"
        "sys.exit('llvmlite' in sys.modules or 'anyvirt.machines.machine' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
