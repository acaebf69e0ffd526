"""Firmware as Debian has it: OpenSBI, and U-Boot in M- and S-mode, to its prompt and on to a kernel."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import anyvirt
from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.devices.virtio.blk import VirtioBlk
from anyvirt.devices.virtio.mmio import VirtioMmio
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.images.kernels import installed_kernels
from anyvirt.isa.names import Isa
from anyvirt.machines.disks.image import open_image
from anyvirt.machines.ending import Reason

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

PATIENCE = 200
DYNAMIC, JUMP = "generic/fw_dynamic", "generic/fw_jump"
M_MODE, S_MODE = "qemu-riscv64", "qemu-riscv64_smode"


@pytest.fixture(scope="module")
def opensbi(debian_riscv64):
    root = debian_riscv64("opensbi") / "usr/lib/riscv64-linux-gnu/opensbi"
    return lambda name: root / name


@pytest.fixture(scope="module")
def u_boot(debian_riscv64):
    root = debian_riscv64("u-boot-qemu") / "usr/lib/u-boot"
    return lambda name: root / name


_START = 2048
_ENTRY = struct.pack("<B3sB3sII", 0x80, bytes(3), 0x83, bytes(3), _START, 127 * 2048)
_PARTITION_TABLE = (bytes(446) + _ENTRY).ljust(510, b"\0") + b"\x55\xaa"
"""One bootable partition for Linux, behind the first MiB."""


def come_to_the_prompt(machine):
    console = machine.console
    console.expect("Hit any key to stop autoboot", timeout=PATIENCE)
    console.send(" ")
    console.expect(r"(?m)^=> ", timeout=PATIENCE)


def ask(machine, command, pattern):
    machine.console.send(command + "\n")
    found = machine.console.expect(pattern, timeout=PATIENCE)
    machine.console.expect(r"(?m)^=> ", timeout=PATIENCE)
    return found


@pytest.mark.parametrize("tier", ["interpreter", "stencil"])
@pytest.mark.parametrize(
    ("firmware", "kernel", "cpus"),
    [
        (None, f"{S_MODE}/uboot.elf", 2),
        (f"{M_MODE}/u-boot.bin", None, 1),
        (f"{M_MODE}/uboot.elf", None, 2),
        (f"{DYNAMIC}.bin", f"{S_MODE}/u-boot.bin", 1),
        (f"{DYNAMIC}.elf", f"{S_MODE}/uboot.elf", 2),
        (f"{JUMP}.bin", f"{S_MODE}/u-boot.bin", 2),
        (f"{JUMP}.elf", f"{S_MODE}/uboot.elf", 1),
    ],
)
def test_u_boot_comes_to_its_prompt_and_is_turned_off(opensbi, u_boot, firmware, kernel, cpus, tier):
    if firmware is not None:
        firmware = opensbi(firmware) if firmware.startswith("generic") else u_boot(firmware)
    with anyvirt.Machine(
        firmware=firmware,
        kernel=u_boot(kernel) if kernel is not None else None,
        memory="256M",
        cpus=cpus,
        tier=tier,
    ) as machine:
        come_to_the_prompt(machine)
        if firmware is not None and "opensbi" in str(firmware):
            assert f"Platform HART Count         : {cpus}" in machine.console.text
        assert ask(machine, "bdinfo", r"memory\[0\]\s+\[(0x[0-9a-f]+)-(0x[0-9a-f]+)\]").groups() == (
            "0x80000000",
            "0x8fffffff",
        )
        privilege = 3 if kernel is None else 1
        assert {hart.privilege for hart in machine.harts} & {privilege} == {privilege}
        ask(machine, "mw.l 0x88000000 0x12345678 4; md.l 0x88000000 4", r"88000000: 12345678 12345678")
        machine.console.send("poweroff\n")
        assert machine.run(seconds=PATIENCE).reason is Reason.POWEROFF


@pytest.fixture(scope="module")
def disk(tmp_path_factory, riscv64_kernel, riscv64_busybox):
    """An ext4 file system as installers make it, with what U-Boot looks for: extlinux.conf."""
    if shutil.which("mke2fs") is None:
        pytest.skip("needs mke2fs (package e2fsprogs)")
    directory = tmp_path_factory.mktemp("disk")
    files = directory / "files"
    (files / "bin").mkdir(parents=True)
    shutil.copy(riscv64_busybox, files / "bin/busybox")
    (files / "bin/sh").symlink_to("busybox")
    shell = Run(("/bin/sh", "-i"), {"PATH": "/bin", "PS1": "ready> "}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
    initrd = make_initramfs(Initramfs(Isa.RISCV64, files=files, channel="", run=shell), directory)
    root = directory / "root"
    (root / "extlinux").mkdir(parents=True)
    shutil.copy(next(installed_kernels(riscv64_kernel)).path, root / "vmlinux")
    shutil.copy(initrd, root / "initrd.img")
    (root / "extlinux/extlinux.conf").write_text(
        "default linux\nlabel linux\n  kernel /vmlinux\n  initrd /initrd.img\n"
        "  append console=ttyS0 quiet panic=-1\n"
    )
    image = directory / "disk.img"
    image.write_bytes(_PARTITION_TABLE)
    words = ["mke2fs", "-q", "-t", "ext4", "-E", f"offset={_START * 512}", "-d", root, image, "127M"]
    subprocess.run(words, check=True, timeout=100)
    with image.open("r+b") as file:
        file.truncate(128 << 20)
    return Path(image)


def test_u_boot_boots_debian_s_kernel_from_a_virtio_disk(opensbi, u_boot, disk):
    image = open_image(disk, format="raw", read_only=True)

    def attach(board):
        board.attach_virtio_mmio(
            "disk", lambda wire: VirtioMmio(VirtioBlk(board.memory, image), interrupt=wire)
        )

    with anyvirt.Machine(
        firmware=opensbi(f"{DYNAMIC}.bin"),
        kernel=u_boot(f"{S_MODE}/u-boot.bin"),
        memory="512M",
        tier="stencil",
        attach=attach,
    ) as machine:
        machine.console.expect("extlinux.conf", timeout=PATIENCE)
        machine.console.expect(r"(?m)^ready> ", timeout=PATIENCE)
        machine.console.send("exit\n")
        assert machine.run(seconds=PATIENCE).reason is Reason.POWEROFF
    image.close()
