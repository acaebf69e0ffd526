"""Initial file systems: what is in them, and that Debian's kernel for RISC-V comes up with one under QEMU."""

import io
import os
import shutil
import signal
import socket
import subprocess

import pytest

from anyvirt.agent.client import AgentClient
from anyvirt.agent.protocol import Channel, Kind, LoadModule, MakeDirectory, Mount, Run, RunFlag, SwitchRoot
from anyvirt.agent.streams import SocketStream
from anyvirt.images.errors import ImageError
from anyvirt.images.initramfs import DiskRoot, Initramfs, Share, SharedRoot, plan_of, write_initramfs
from anyvirt.instance import ExitStatus
from anyvirt.isa.names import Isa
from anyvirt.linux.elf import parse_elf

from .test_cpio import entries

TIMEOUT = 60


def written(initramfs):
    sink = io.BytesIO()
    write_initramfs(initramfs, sink)
    return {name: (fields, body) for name, fields, body in entries(sink.getvalue())}


def test_it_has_the_agent_as_init_and_a_console(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/tool").write_bytes(b"tool")
    found = written(Initramfs(Isa.RISCV64, files=tmp_path))
    assert parse_elf(found["init"][1]).isa is Isa.RISCV64
    assert found["init"][0][1] & 0o777 == 0o755
    assert found["bin/tool"][1] == b"tool"
    assert found["dev/console"][0][9:11] == [5, 1]
    assert found["anyvirt/plan"][1]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    archives = []
    for _ in range(2):
        sink = io.BytesIO()
        write_initramfs(Initramfs(Isa.RISCV64, host_name="box"), sink)
        archives.append(sink.getvalue())
    assert archives[0] == archives[1]


def test_a_read_only_root_lies_below_an_overlay():
    steps = plan_of(Initramfs(Isa.RISCV64, root=SharedRoot("root")))
    mounts = [step for step in steps if isinstance(step, Mount)]
    assert [mount.type for mount in mounts[-3:]] == ["9p", "tmpfs", "overlay"]
    assert mounts[-3].flags == 1
    kinds = [step.kind for step in steps[-2:]]
    assert kinds == [Kind.SWITCH_ROOT, Kind.CHANNEL]
    writable = plan_of(Initramfs(Isa.RISCV64, root=DiskRoot("/dev/vdb", "ext4", read_only=False)))
    assert [step.type for step in writable if isinstance(step, Mount)][-1] == "ext4"
    assert SwitchRoot("/anyvirt/root") in writable
    virtiofs = plan_of(Initramfs(Isa.RISCV64, root=SharedRoot("root", Share.VIRTIOFS)))
    assert "virtiofs" in [step.type for step in virtiofs if isinstance(step, Mount)]


def test_without_a_channel_there_is_a_command():
    run = Run(("/bin/sh",), flags=RunFlag.CONSOLE | RunFlag.MAIN)
    steps = plan_of(Initramfs(Isa.RISCV64, channel="", run=run))
    assert steps[-1] == run
    assert not [step for step in steps if isinstance(step, Channel)]


@pytest.mark.slow
def test_modules_are_carried_and_loaded_in_order(debian_modules):
    initramfs = Initramfs(
        Isa.RISCV64, debian_modules, ("virtio_net",), ("nonsense",), root=DiskRoot("/dev/vda", "ext4")
    )
    found = written(initramfs)
    names = [name.rpartition("-")[2] for name in found if name.startswith("anyvirt/modules/")]
    assert names.index("jbd2.ko") < names.index("ext4.ko")
    assert names.index("failover.ko") < names.index("virtio_net.ko")
    loads = [step.path for step in plan_of(initramfs) if isinstance(step, LoadModule)]
    assert [path.lstrip("/") for path in loads] == [name for name in found if name.endswith(".ko")]
    with pytest.raises(ImageError, match="has no module nonsense"):
        written(Initramfs(Isa.RISCV64, debian_modules, ("nonsense",)))


class Machine:
    """QEMU's virt board with a kernel, an initial file system, and the agent's channel on a socket."""

    def __init__(self, kernel, directory, initramfs, *options):
        path = directory / "initramfs"
        with path.open("wb") as file:
            write_initramfs(initramfs, file)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "agent"))
        self._listener.listen()
        self._listener.settimeout(TIMEOUT)
        self.console = directory / "console"
        command = [
            "qemu-system-riscv64", "-M", "virt", "-m", "512M", "-nodefaults", "-nographic", "-no-reboot",
            "-serial", f"file:{self.console}",
            "-kernel", kernel, "-initrd", path, "-append", "console=ttyS0 quiet panic=-1",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,reconnect=1,path={directory / 'agent'}",
            "-device", "virtserialport,chardev=agent,name=org.anyvirt.agent",
            *options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self.client = self.meet()

    def meet(self):
        """A client for the connection that QEMU makes."""
        connection, _ = self._listener.accept()
        return AgentClient(SocketStream(connection))

    def close(self):
        self.client.close()
        self._listener.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def boot(riscv64_kernel, tmp_path):
    """Boot a machine: `boot(initramfs, *QEMU's options)`."""
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("needs qemu-system-riscv64 (packages qemu-system-misc, opensbi)")
    (kernel,) = (riscv64_kernel / "boot").glob("vmlinux-*")
    machines = []

    def start(initramfs, *options):
        machines.append(Machine(kernel, tmp_path, initramfs, *options))
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


@pytest.fixture
def root(tmp_path, riscv64_busybox):
    """A root file system that is nothing but busybox."""
    directory = tmp_path / "root"
    for name in ("bin", "proc", "sys", "dev", "run", "tmp", "etc"):
        (directory / name).mkdir(parents=True)
    shutil.copy(riscv64_busybox, directory / "bin/busybox")
    for name in (
        "sh",
        "cat",
        "ls",
        "mount",
        "ps",
        "stty",
        "tty",
        "uname",
        "sleep",
        "hostname",
        "touch",
        "md5sum",
    ):
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/mark").write_text("the host's\n")
    return directory


def finish(command):
    status = command.wait(TIMEOUT)
    return command.stdout.read_all().decode(), status


def sh(script, **options):
    return Run(("sh", "-c", script), {"PATH": "/bin"}, **options)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_machine_comes_up_and_serves_its_agent(boot, root):
    machine = boot(Initramfs(Isa.RISCV64, files=root, host_name="box"))
    welcome = machine.client.connect(TIMEOUT)
    assert (welcome.machine, welcome.host_name) == ("riscv64", "box")
    out, status = finish(machine.client.run(sh("echo $$; hostname; cat /etc/mark; exit 5")))
    assert out.endswith("box\nthe host's\n")
    assert status == ExitStatus(code=5)
    content = os.urandom(300_000)
    command = machine.client.run(Run(("/bin/cat",)))
    import threading

    def write():
        command.write(content, TIMEOUT)
        command.close_input()

    writer = threading.Thread(target=write)
    writer.start()
    assert command.stdout.read_all() == content
    writer.join()
    terminal = machine.client.run(sh("stty size; tty", flags=RunFlag.TERMINAL, rows=30, columns=100))
    assert finish(terminal)[0] == "30 100\r\n/dev/pts/0\r\n"
    killed = machine.client.run(sh("exec sleep 1000"))
    killed.signal(signal.SIGTERM)
    assert killed.wait(TIMEOUT) == ExitStatus(signal=signal.SIGTERM)
    machine.client.shut_down(grace=1)
    assert machine.process.wait(TIMEOUT) == 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_shared_directory_becomes_the_root_and_keeps_no_changes(boot, root, debian_modules):
    machine = boot(
        Initramfs(Isa.RISCV64, debian_modules, root=SharedRoot("root")),
        "-fsdev", f"local,id=root,path={root},security_model=none,readonly=on",
        "-device", "virtio-9p-pci,fsdev=root,mount_tag=root",
    )  # fmt: skip
    machine.client.connect(TIMEOUT)
    script = "cat /etc/mark; echo changed > /etc/mark; cat /etc/mark; ls -d /anyvirt /init /dev/pts/ptmx"
    out, _ = finish(machine.client.run(sh(script)))
    assert out == "the host's\nchanged\n/dev/pts/ptmx\n"
    assert (root / "etc/mark").read_text() == "the host's\n"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_disk_becomes_the_root_and_keeps_its_changes(boot, root, debian_modules, tmp_path):
    if shutil.which("mke2fs") is None:
        pytest.skip("needs mke2fs (package e2fsprogs)")
    disk = tmp_path / "disk"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, "64M"], check=True, timeout=60)
    machine = boot(
        Initramfs(Isa.RISCV64, debian_modules, root=DiskRoot("/dev/vda", "ext4", read_only=False)),
        "-drive", f"file={disk},format=raw,if=none,id=disk",
        "-device", "virtio-blk-pci,drive=disk",
    )  # fmt: skip
    machine.client.connect(TIMEOUT)
    assert finish(machine.client.run(sh("echo kept > /etc/mark; touch /new")))[1] == ExitStatus(code=0)
    machine.client.request(MakeDirectory("/made"))
    machine.client.shut_down(grace=1)
    assert machine.process.wait(TIMEOUT) == 0
    checked = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, timeout=60)
    assert checked.returncode == 0, checked.stdout
    listed = subprocess.run(["debugfs", "-R", "cat /etc/mark", disk], capture_output=True, timeout=60)
    assert listed.stdout == b"kept\n"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_command_on_the_console_is_all_there_is(boot, root):
    run = Run(
        ("sh", "-c", "echo on the console; tty"), {"PATH": "/bin"}, flags=RunFlag.CONSOLE | RunFlag.MAIN
    )
    machine = boot(Initramfs(Isa.RISCV64, files=root, channel="", run=run))
    assert machine.process.wait(TIMEOUT) == 0
    assert "on the console\r\n" in machine.console.read_bytes().decode(errors="replace")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_host_may_go_and_come_again(boot, root):
    machine = boot(Initramfs(Isa.RISCV64, files=root))
    machine.client.connect(TIMEOUT)
    flood = machine.client.run(sh("while :; do echo y; done"))
    assert flood.stdout.read().startswith(b"y\n")
    machine.client.close()
    machine.client = machine.meet()
    assert machine.client.connect(TIMEOUT).machine == "riscv64"
    assert finish(machine.client.run(sh("echo again")))[0] == "again\n"
    out, _ = finish(machine.client.run(sh("ps -o pid,args")))
    assert "echo y" not in out
