"""The device tree of the board `virt`, compared with QEMU's and read by dtc."""

import mmap
import shutil
import struct
import subprocess

import fdt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.boards.device_tree import Node, cells64, flatten
from anyvirt.boards.virt_map import Range
from anyvirt.boards.virt_tree import Chosen, HartDescription
from anyvirt.errors import UsageError

from .boards import Machine, Scratch

HARTS, RAM = 3, 256 << 20
REFERENCES = {"interrupt-parent", "regmap", "cpu"}
ABSENT = ("/pmu", "/fw-cfg@10100000", "/platform-bus@4000000")
"""What QEMU's board has and this one has not."""


def properties(blob):
    """All properties of a tree: node paths, with dictionaries of bytes; phandles are replaced by paths."""
    found = {}

    def walk(node, path):
        found[path or "/"] = {item.name: raw(item) for item in node.props}
        for child in node.nodes:
            walk(child, f"{path}/{child.name}")

    walk(fdt.parse_dtb(blob).root, "")
    targets = {node["phandle"]: path.encode() for path, node in found.items() if "phandle" in node}
    for node in found.values():
        for name in REFERENCES & node.keys():
            node[name] = targets[node[name]]
        if "interrupts-extended" in node:
            cells = chunks(node["interrupts-extended"])
            node["interrupts-extended"] = [
                targets.get(c, c) if n % 2 == 0 else c for n, c in enumerate(cells)
            ]
        if "interrupt-map" in node:
            cells = chunks(node["interrupt-map"])
            node["interrupt-map"] = [targets[c] if n % 6 == 4 else c for n, c in enumerate(cells)]
        node.pop("phandle", None)
    return found


def raw(item):
    """The bytes of a property of the library's."""
    blob, _, _ = item.to_dtb("", 0)
    length = struct.unpack(">I", blob[4:8])[0]
    return blob[12 : 12 + length]


def chunks(content):
    return [content[start : start + 4] for start in range(0, len(content), 4)]


def whole_machine():
    machine = Machine(
        harts=HARTS,
        ram_size=RAM,
        flash=[mmap.mmap(-1, 32 << 20), mmap.mmap(-1, 32 << 20)],
        hart=HartDescription(mmu="sv48"),
    )
    for slot in range(8):
        machine.board.attach_virtio_mmio(f"virtio{slot}", lambda wire: Scratch())
    machine.board.attach_pci(Scratch())
    return machine


@pytest.fixture(scope="module")
def qemu_tree(tmp_path_factory):
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("qemu-system-riscv64 is not installed (Debian: qemu-system-misc)")
    blob = tmp_path_factory.mktemp("tree") / "virt.dtb"
    subprocess.run(
        ["qemu-system-riscv64", "-M", f"virt,dumpdtb={blob}", "-smp", str(HARTS), "-m", "256", "-nographic"],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    return properties(blob.read_bytes())


def test_every_node_is_as_on_qemu_s_board(qemu_tree):
    ours = properties(whole_machine().board.device_tree(Chosen(rng_seed=bytes(32))))
    assert ours.keys() == qemu_tree.keys() - set(ABSENT)
    own = {"riscv,isa", "riscv,isa-base", "riscv,isa-extensions", "rng-seed"}
    for path, node in ours.items():
        theirs = {name: value for name, value in qemu_tree[path].items() if name not in own}
        assert {name: value for name, value in node.items() if name not in own} == theirs, path


def test_dtc_finds_nothing_wrong(tmp_path):
    if shutil.which("dtc") is None:
        pytest.skip("dtc is not installed (Debian: device-tree-compiler)")
    (tmp_path / "virt.dtb").write_bytes(whole_machine().board.device_tree(Chosen("console=ttyS0 quiet")))
    completed = subprocess.run(
        ["dtc", "-I", "dtb", "-O", "dts", "virt.dtb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert completed.returncode == 0
    # PCI's ranges and names with an underscore are what QEMU's tree has, too.
    assert not [line for line in completed.stderr.splitlines() if "ERROR" in line]
    assert 'bootargs = "console=ttyS0 quiet";' in completed.stdout
    assert 'riscv,isa = "rv64imafdc_zicsr_zifencei_zba_zbb_zbs";' in completed.stdout


def test_opensbi_finds_its_devices_in_the_tree(tmp_path):
    """The firmware that QEMU starts reads our tree instead of QEMU's."""
    if shutil.which("qemu-system-riscv64") is None:
        pytest.skip("qemu-system-riscv64 is not installed (Debian: qemu-system-misc)")
    (tmp_path / "virt.dtb").write_bytes(whole_machine().board.device_tree())
    words = ("-M", "virt", "-smp", str(HARTS), "-m", "256", "-dtb", "virt.dtb", "-display", "none")
    with subprocess.Popen(
        ["qemu-system-riscv64", *words, "-serial", "stdio", "-monitor", "none"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as qemu:
        found = {}
        for line in qemu.stdout:
            name, colon, value = line.partition(" : ")
            if colon:
                found[name.strip()] = value.strip()
            if name.startswith("Boot HART MEDELEG"):
                break
        qemu.kill()
    if not found:
        pytest.skip("QEMU has no OpenSBI (Debian: opensbi)")
    assert found["Platform HART Count"] == str(HARTS)
    assert found["Platform Console Device"] == "uart8250"
    assert found["Platform IPI Device"].endswith("mswi")
    assert found["Platform Timer Device"].endswith("@ 10000000Hz")
    assert found["Platform Reboot Device"] == found["Platform Shutdown Device"] == "sifive_test"


def test_what_is_not_there_is_not_in_the_tree():
    paths = properties(Machine().board.device_tree()).keys()
    assert not [path for path in paths if "flash" in path or "virtio" in path or "pci" in path]


def test_the_kernel_is_told_what_is_chosen():
    chosen = Chosen("quiet", Range(0x8800_0000, 0x1234), b"random" * 6)
    node = properties(Machine().board.device_tree(chosen))["/chosen"]
    assert node == {
        "stdout-path": b"/soc/serial@10000000\0",
        "bootargs": b"quiet\0",
        "linux,initrd-start": (0x8800_0000).to_bytes(8, "big"),
        "linux,initrd-end": (0x8800_1234).to_bytes(8, "big"),
        "rng-seed": b"random" * 6,
    }


def test_a_device_that_is_attached_can_be_described():
    machine = Machine()
    place = Range(0x5000_0000, 0x1000)
    node = Node("scratch@50000000", {"compatible": "anyvirt,scratch", "reg": cells64(*place)})
    machine.board.attach("scratch", Scratch(), place, node=node)
    found = properties(machine.board.device_tree())["/soc/scratch@50000000"]
    assert found == {"compatible": b"anyvirt,scratch\0", "reg": struct.pack(">2Q", *place)}


@pytest.mark.parametrize("bootargs", ["grüße", "a\0b"])
def test_text_that_a_tree_cannot_hold_is_refused(bootargs):
    with pytest.raises(UsageError, match="bootargs of a device tree takes"):
        Machine().board.device_tree(Chosen(bootargs))


def test_too_little_memory_for_the_tree():
    with pytest.raises(UsageError, match="too few for the board's device tree"):
        Machine(harts=64, ram_size=4096).board.load_device_tree()


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789,._+-", min_size=1, max_size=20)
VALUES = st.one_of(
    st.none(),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=20),
    st.lists(st.integers(0, 2**32 - 1), max_size=6).map(tuple),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    st.lists(st.text("abc", max_size=4), max_size=4),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(properties=st.dictionaries(NAMES, VALUES, max_size=8), children=st.sets(NAMES, max_size=4))
def test_what_is_flattened_is_what_a_reader_finds(properties, children):
    """Read by the rules of the specification, chapter 5, apart from any library."""
    root = Node("/", properties, [Node(name, {"reg": 1}) for name in sorted(children)])
    blob = flatten(root)
    assert read_root(blob) == {name: encoded(value) for name, value in properties.items()}


def encoded(value):
    match value:
        case None:
            return b""
        case int():
            return struct.pack(">I", value)
        case tuple():
            return struct.pack(f">{len(value)}I", *value)
        case str():
            return value.encode() + b"\0"
        case list():
            return b"".join(text.encode() + b"\0" for text in value)
    return value


def read_root(blob):
    """The properties of the root node."""
    magic, total, structure, strings = struct.unpack(">4I", blob[:16])
    assert magic == 0xD00DFEED
    assert total == len(blob)
    assert struct.unpack(">2I", blob[structure : structure + 8]) == (1, 0)
    position, found = structure + 8, {}
    while True:
        token = struct.unpack(">I", blob[position : position + 4])[0]
        if token != 3:
            return found
        length, name = struct.unpack(">2I", blob[position + 4 : position + 12])
        label = blob[strings + name : blob.index(b"\0", strings + name)].decode()
        found[label] = blob[position + 12 : position + 12 + length]
        position += 12 + (length + 3 & ~3)
