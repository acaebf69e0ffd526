"""Debian's kernel with a display, a keyboard and a pointer: what is typed is to be read, as under QEMU."""

import base64
import json
import random
import re
import shutil
import socket
import struct
import subprocess
import time

import pytest

import anyvirt
from anyvirt.agent.protocol import Run, RunFlag
from anyvirt.devices.evdev import Key, Led
from anyvirt.images.initramfs import Initramfs, make_initramfs
from anyvirt.images.kernels import installed_kernels
from anyvirt.isa.names import Isa
from anyvirt.machines.ending import Reason
from anyvirt.machines.seat.picture import Picture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 300
EMULATOR = "qemu-system-riscv64"
WIDTH, HEIGHT = 1024, 768
CELL_WIDTH, CELL_HEIGHT = 8, 16
TOOLS = ("sh", "cat", "base64", "grep", "sleep", "setsid", "printf", "dd", "head", "true")
MODULES = ("virtio_gpu", "virtio_input", "evdev")
WORDS = "console=tty0 console=ttyS0 panic=-1 quiet"
PROMPT = r"(?m)^ready> "
DRAW = "echo 0 >/sys/class/vtconsole/vtcon1/bind; cat /picture >/dev/fb0; echo drawn\n"


def drawing():
    """A picture in the format of /dev/fb0: blue, green, red and nothing of each pixel."""
    chance = random.Random(3)
    rows = []
    for y in range(HEIGHT):
        noise = chance.randbytes(WIDTH)
        row = bytearray(4 * WIDTH)
        row[0::4] = noise
        row[1::4] = bytes((x ^ y) & 0xFF for x in range(WIDTH))
        row[2::4] = bytes((x + 2 * y) & 0xFF for x in range(WIDTH))
        rows.append(bytes(row))
    return b"".join(rows)


def colours(pixels):
    rgb = bytearray(3 * WIDTH * HEIGHT)
    for colour in range(3):
        rgb[colour::3] = pixels[2 - colour :: 4]
    return bytes(rgb)


@pytest.fixture(scope="module")
def kernel(riscv64_kernel):
    return next(installed_kernels(riscv64_kernel))


@pytest.fixture(scope="module")
def initrd(tmp_path_factory, riscv64_busybox, kernel):
    directory = tmp_path_factory.mktemp("seat")
    root = directory / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(riscv64_busybox, root / "bin/busybox")
    for tool in TOOLS:
        (root / "bin" / tool).symlink_to("busybox")
    (root / "picture").write_bytes(drawing())
    shell = Run(("/bin/sh", "-i"), {"PATH": "/bin", "PS1": "ready> "}, flags=RunFlag.CONSOLE | RunFlag.MAIN)
    initramfs = Initramfs(Isa.RISCV64, kernel.modules, load=MODULES, files=root, channel="", run=shell)
    return make_initramfs(initramfs, directory)


@pytest.fixture(scope="module")
def booted(kernel, initrd):
    with anyvirt.Machine(
        kernel=kernel.path,
        initrd=initrd,
        append=WORDS,
        memory="512M",
        display=(WIDTH, HEIGHT),
        tier="stencil",
    ) as machine:
        machine.console.expect(PROMPT, timeout=PATIENCE)
        ready = machine.run(
            seconds=PATIENCE,
            until=lambda: machine.display.is_on and machine.keyboard.is_ready and machine.pointer.is_ready,
        )
        assert ready.reason is Reason.CONDITION
        yield machine


@pytest.fixture
def machine(booted):
    return booted.clone()


def do(machine, command):
    """What the shell on the serial line prints for a command."""
    machine.console.send(f"{command}; echo; echo d''one\n")
    return machine.console.expect(r"(?s)\n(.*?)done\r?\n", timeout=PATIENCE)[1]


def encoded(shown):
    """What base64 has printed among other things."""
    return base64.b64decode("".join(re.findall(r"(?m)^[A-Za-z0-9+/]{4,76}={0,2}(?=\r?$)", shown)))


def screen(machine):
    """(columns, rows of (character, attributes)) of the text console, as the kernel has it."""
    content = encoded(do(machine, "base64 /dev/vcsa1"))
    rows, columns = content[0], content[1]
    cells = list(struct.iter_unpack("BB", content[4:]))
    assert len(cells) == rows * columns
    return columns, [cells[row * columns : (row + 1) * columns] for row in range(rows)]


def is_shown(picture, rows):
    """Whether each character of the console has one look, and no other character has that one."""
    looks = {}
    for row, cells in enumerate(rows):
        for column, cell in enumerate(cells):
            place = (column * CELL_WIDTH, row * CELL_HEIGHT, CELL_WIDTH, CELL_HEIGHT)
            if looks.setdefault(cell, seen := picture.crop(*place).rgb) != seen:
                return False
    return len(set(looks.values())) == len(looks)


def test_what_is_typed_is_to_be_read_on_the_display(machine):
    do(machine, r"printf '\033[2J\033[H\033[?25l' >/dev/tty1")
    do(machine, "setsid sh -c 'PS1=seat\\>\\  exec sh -i </dev/tty1 >/dev/tty1 2>&1' & true")
    do(machine, "until grep -q 'seat> ' /dev/vcs1; do sleep 0.1; done")
    before = machine.screenshot()
    machine.keyboard.type('echo "Quick: $((6*7)) {brown} FOX_~|?"\n')
    do(machine, "until grep -q 'Quick: 42 {brown} FOX_~|? ' /dev/vcs1; do sleep 0.1; done")
    columns, rows = screen(machine)
    assert (columns, len(rows)) == (WIDTH // CELL_WIDTH, HEIGHT // CELL_HEIGHT)
    text = ["".join(chr(character) for character, _ in row).rstrip() for row in rows]
    assert 'seat> echo "Quick: $((6*7)) {brown} FOX_~|?"' in text
    assert "Quick: 42 {brown} FOX_~|?" in text
    shown = machine.run(seconds=PATIENCE, until=lambda: is_shown(machine.screenshot(), rows))
    assert shown.reason is Reason.CONDITION
    assert machine.screenshot() != before


def test_keys_move_the_guest_s_lights(machine):
    machine.keyboard.press("capslock")
    lit = machine.run(seconds=PATIENCE, until=lambda: Led.LED_CAPSL in machine.keyboard.lights)
    assert lit.reason is Reason.CONDITION


def test_the_guest_sees_where_is_clicked(machine):
    do(machine, "exec 3</dev/input/event1")
    machine.pointer.click(600, 40)
    shown = do(machine, "dd bs=24 count=7 <&3 2>/dev/null | base64")
    events = [event[2:] for event in struct.iter_unpack("<QQHHi", encoded(shown))]
    (x, y), rest = [value for kind, _, value in events[:2] if kind == 3], events[2:]
    assert (x * WIDTH // 32768, y * HEIGHT // 32768) == (600, 40)
    button = Key.BTN_LEFT
    assert rest == [(0, 0, 0), (1, button, 1), (0, 0, 0), (1, button, 0), (0, 0, 0)]


def test_the_guest_hears_of_another_resolution(machine):
    modes = "/sys/class/drm/card0-Virtual-1/modes"
    assert re.findall(r"(?m)^(\d+x\d+)\r?$", do(machine, f"cat {modes}"))[0] == "1024x768"
    machine.display.resize(800, 600)
    do(machine, f"until head -n 1 {modes} | grep -q 800x600; do sleep 0.1; done")


def test_a_picture_is_the_same_as_under_qemu(machine, kernel, initrd, tmp_path):
    expected = Picture(WIDTH, HEIGHT, colours(drawing()))
    machine.console.send(DRAW)
    machine.console.expect(r"(?m)^drawn", timeout=PATIENCE)
    drawn = machine.run(seconds=PATIENCE, until=lambda: machine.screenshot() == expected)
    assert drawn.reason is Reason.CONDITION
    copy = machine.clone()
    assert copy.screenshot() == expected
    with Qemu(tmp_path, kernel.path, initrd) as qemu:
        qemu.expect(rb"(?m)^ready> ")
        qemu.send(DRAW.encode())
        qemu.expect(rb"(?m)^drawn")
        ending = time.monotonic() + PATIENCE
        while qemu.picture() != expected:
            assert time.monotonic() < ending, "QEMU's display shows another picture"
            time.sleep(1)


class Qemu:
    """The same guest on QEMU's machine: its serial line and its display."""

    def __init__(self, directory, kernel, initrd):
        if shutil.which(EMULATOR) is None:
            pytest.skip(f"{EMULATOR} is not installed (Debian: qemu-system-misc)")
        self.directory = directory
        listeners = []
        for name in ("serial", "qmp"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(directory / name))
            listener.listen()
            listener.settimeout(PATIENCE)
            listeners.append(listener)
        machine = ("-machine", "virt", "-m", "512", "-nodefaults", "-display", "none")
        display = ("-device", f"virtio-gpu-pci,xres={WIDTH},yres={HEIGHT}")
        guest = ("-kernel", str(kernel), "-initrd", str(initrd), "-append", WORDS)
        ends = ("-serial", f"unix:{directory / 'serial'}", "-qmp", f"unix:{directory / 'qmp'}")
        self.process = subprocess.Popen(
            [EMULATOR, *machine, *display, *guest, *ends],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.serial, self.control = (listener.accept()[0] for listener in listeners)
        for listener in listeners:
            listener.close()
        self.serial.settimeout(PATIENCE)
        self.control.settimeout(PATIENCE)
        self.monitor = self.control.makefile("rw")
        self.printed = b""
        self.monitor.readline()
        self.command("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        self.monitor.close()
        self.control.close()
        self.serial.close()

    def command(self, name, **arguments):
        self.monitor.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.monitor.flush()
        while "return" not in (answer := json.loads(self.monitor.readline())):
            assert "error" not in answer, answer

    def send(self, text):
        self.serial.sendall(text)

    def expect(self, pattern):
        ending = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.printed)) is None:
            assert time.monotonic() < ending, self.printed[-400:]
            self.printed += self.serial.recv(4096)
        self.printed = self.printed[found.end() :]

    def picture(self):
        """What its display shows: a portable pixmap with a header of three words."""
        path = self.directory / "shown.ppm"
        self.command("screendump", filename=str(path))
        header = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", content := path.read_bytes())
        return Picture(int(header[1]), int(header[2]), content[header.end() :])
