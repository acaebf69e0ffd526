"""Which modules a guest needs: small trees made here, and Debian's kernel with kmod as the oracle."""

import gzip
import lzma
import os
import shutil
import struct
import subprocess

import pytest

from anyvirt.images.errors import ImageError
from anyvirt.images.modules import ModuleTree


def module(*statements, wide=True, order="<"):
    """A relocatable ELF file whose only content is the section .modinfo."""
    info = b"".join(statement.encode() + b"\0" for statement in statements)
    names = b"\0.modinfo\0.shstrtab\0"
    header_size, entry = (64, "IIQQQQIIQQ") if wide else (52, "IIIIIIIIII")
    sections = [
        (0,) * 10,
        (1, 1, 0, 0, header_size, len(info), 0, 0, 1, 0),
        (10, 3, 0, 0, header_size + len(info), len(names), 0, 0, 1, 0),
    ]
    identity = b"\x7fELF" + bytes([2 if wide else 1, "<>".index(order) + 1, 1]) + bytes(9)
    table = header_size + len(info) + len(names)
    fields = (1, 243, 1, 0, 0, table, 0, header_size, 0, 0, struct.calcsize(order + entry), 3, 2)
    header = struct.pack(order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"), *fields)
    return identity + header + info + names + b"".join(struct.pack(order + entry, *s) for s in sections)


@pytest.fixture
def tree(tmp_path):
    """Make a directory of modules: `tree({"kernel/a.ko": ["depends=b"]})`."""

    def make(modules, **files):
        directory = tmp_path / "6.1.0-test"
        for name, statements in modules.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            content = module(*statements)
            packed = {".xz": lzma.compress, ".gz": gzip.compress}.get(path.suffix, bytes)(content)
            path.write_bytes(packed)
        for name, text in files.items():
            (directory / name.replace("_", ".")).write_text(text)
        return ModuleTree(directory)

    return make


def names(modules):
    return [one.name for one in modules]


def test_dependencies_come_first_and_each_once(tree):
    modules = tree(
        {
            "kernel/top.ko": ["depends=left,right"],
            "kernel/left.ko.xz": ["depends=base-one"],
            "kernel/right.ko.gz": ["depends=base-one"],
            "kernel/base-one.ko": ["depends="],
        }
    )
    assert names(modules.needed(["top", "left"])) == ["base_one", "left", "right", "top"]


def test_soft_dependencies_are_loaded_where_they_exist(tree):
    modules = tree(
        {
            "kernel/a.ko": ["softdep=pre: b missing post: c", "softdep=post: d"],
            "kernel/b.ko": [],
            "kernel/c.ko": ["softdep=pre: a"],
            "kernel/d.ko": [],
        }
    )
    assert names(modules.needed(["a"])) == ["b", "a", "c", "d"]


def test_what_is_built_in_needs_no_module(tree):
    modules = tree(
        {"kernel/a.ko": ["depends=core"]},
        modules_builtin="kernel/core.ko\nkernel/fs/virt-fs.ko\n",
    )
    (modules.directory / "modules.builtin.modinfo").write_bytes(b"core.alias=fs-core\0core.license=GPL\0")
    assert names(modules.needed(["a", "virt_fs", "fs-core"])) == ["a"]
    assert modules.has("virt-fs")
    assert not modules.has("nothing")


@pytest.mark.parametrize("depmod", [True, False], ids=["modules.alias", "read from the modules"])
def test_aliases_are_patterns(tree, depmod):
    aliases = {"modules_alias": "# c\nalias pci:v00001AF4d*sv* a\nalias fs-a a\n"} if depmod else {}
    modules = tree({"kernel/a.ko": ["alias=pci:v00001AF4d*sv*", "alias=fs-a"], "kernel/b.ko": []}, **aliases)
    for alias in ("pci:v00001AF4d00001001sv0", "fs-a", "fs_a"):
        assert names(modules.needed([alias])) == ["a"]
    again = ModuleTree(modules.directory)
    assert names(again.needed(["fs-a"])) == ["a"]


def test_updates_stand_before_the_kernel_s_own(tree):
    modules = tree({"updates/a.ko": ["depends="], "kernel/drivers/a.ko": ["depends=b"]})
    (found,) = modules.needed(["a"])
    assert found.path == modules.directory / "updates/a.ko"


def test_what_is_missing_is_said(tree):
    modules = tree({"kernel/a.ko": ["depends=gone"]})
    with pytest.raises(ImageError, match=r"kernel 6\.1\.0-test has no module nonsense, in .* or built in"):
        modules.needed(["nonsense"])
    with pytest.raises(ImageError, match=r"module a of kernel 6\.1\.0-test needs gone, which is missing"):
        modules.needed(["a"])
    assert modules.needed([], optional=["nonsense"]) == ()
    with pytest.raises(ImageError, match="no directory of kernel modules"):
        ModuleTree(modules.directory / "nowhere")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "packed"])
def test_a_damaged_module_is_one_sentence(tree, damage):
    modules = tree({"kernel/a.ko.xz": ["depends="]})
    path = modules.directory / "kernel/a.ko.xz"
    content = path.read_bytes()
    path.write_bytes(
        {"cut": lzma.decompress(content)[:90], "garbage": b"text", "empty": b"", "packed": content[:40]}[
            damage
        ]
    )
    with pytest.raises(ImageError, match=r"module .*a\.ko\.xz (is not a kernel module|cannot be unpacked)"):
        modules.needed(["a"])


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", "<>")
def test_modules_of_every_class_and_byte_order_are_read(tmp_path, wide, order):
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/a.ko").write_bytes(module("depends=b", wide=wide, order=order))
    (tmp_path / "kernel/b.ko").write_bytes(module("name=b", wide=wide, order=order))
    assert names(ModuleTree(tmp_path).needed(["a"])) == ["b", "a"]


@pytest.mark.slow
def test_debian_s_modules_are_ordered_as_modprobe_would(debian_modules, tmp_path):
    for tool in ("depmod", "modprobe"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (package kmod)")
    wanted = [
        "virtio_blk",
        "virtio_net",
        "ext4",
        "overlay",
        "9pnet_virtio",
        "9p",
        "erofs",
        "squashfs",
        "virtio_mmio",
    ]
    loaded = debian_modules.needed(wanted)
    assert all(one.content().startswith(b"\x7fELF") for one in loaded)
    # depmod sees the files of these modules only, since over all three thousand it takes half a minute.
    version = debian_modules.version
    root = tmp_path / "lib/modules" / version
    for one in loaded:
        path = root / one.path.relative_to(debian_modules.directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.path.read_bytes())
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(debian_modules.directory / name, root)
    environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
    subprocess.run(["depmod", "-b", tmp_path, version], check=True, env=environment, timeout=60)
    for name in wanted:
        shown = subprocess.run(
            ["modprobe", "-d", tmp_path, "-S", version, "-C", tmp_path, "--show-depends", name],
            capture_output=True, text=True, env=environment, timeout=60, check=True,
        ).stdout  # fmt: skip
        files = [
            os.path.basename(line.split()[1]) for line in shown.splitlines() if line.startswith("insmod")
        ]
        ours = [os.path.basename(one.path) for one in debian_modules.needed([name])]
        assert sorted(ours) == sorted(files)
    order = [str(one.path.relative_to(debian_modules.directory)) for one in loaded]
    for line in (root / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        assert all(order.index(other) < order.index(path) for other in others.split())


@pytest.mark.slow
def test_ext4_gets_the_checksum_that_it_asks_for_by_alias(debian_modules):
    """Its softdep names crypto-crc32c, an alias that only the modules themselves explain."""
    loaded = names(debian_modules.needed(["ext4"]))
    assert loaded.index("crc32c_generic") < loaded.index("ext4")
    assert loaded.index("jbd2") < loaded.index("ext4")
