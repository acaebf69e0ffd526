"""Kernels: their formats, from headers made here and Debian's, and where they are looked for."""

import contextlib
import gzip
import lzma
import shutil
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.errors import UsageError
from anyvirt.images.errors import ImageError
from anyvirt.images.kernel_formats import KernelFormat, recognize_kernel
from anyvirt.images.kernels import DEBIAN_KERNELS, Kernel, find_kernel, installed_kernels
from anyvirt.images.store import Store
from anyvirt.isa.names import Isa

BANNER = b"Linux version 6.1.2-test (builder@host) #1 SMP\n\0"


def riscv(offset=0x200000, size=0x100000, flags=0, version=2):
    head = struct.pack(
        "<IIQQQIIQ8s4sI", 0x5A4D, 0, offset, size, flags, version, 0, 0, b"RISCV", b"RSC\x05", 0
    )
    return head + bytes(64) + BANNER


def arm64():
    return struct.pack("<IIQQQQQQ4sI", 0, 0, 0, 1 << 20, 0, 0, 0, 0, b"ARMd", 0) + BANNER


def bzimage(flags=1):
    data = bytearray(0x1000)
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x206, 0x20F)
    struct.pack_into("<H", data, 0x20E, 0x600)
    struct.pack_into("<H", data, 0x236, flags)
    data[0x800:0x820] = b"6.1.2-test (builder@host) #1 SMP"
    return bytes(data)


def zboot(payload):
    return (
        struct.pack("<4s4sIIQ32s", b"MZ\0\0", b"zimg", 0x100, len(payload), 0, b"gzip").ljust(0x100) + payload
    )


@pytest.mark.parametrize(
    ("data", "kind", "isa"),
    [
        (riscv(), KernelFormat.RISCV_IMAGE, Isa.RISCV64),
        (arm64(), KernelFormat.ARM64_IMAGE, Isa.AARCH64),
        (bzimage(), KernelFormat.BZIMAGE, Isa.X86_64),
        (bzimage(flags=0), KernelFormat.BZIMAGE, Isa.I386),
        (gzip.compress(riscv()), KernelFormat.RISCV_IMAGE, Isa.RISCV64),
        (gzip.compress(riscv()) + b"a signature", KernelFormat.RISCV_IMAGE, Isa.RISCV64),
        (lzma.compress(arm64()), KernelFormat.ARM64_IMAGE, Isa.AARCH64),
        (zboot(gzip.compress(riscv())), KernelFormat.RISCV_IMAGE, Isa.RISCV64),
    ],
)
def test_formats(data, kind, isa):
    image = recognize_kernel(data, what="it")
    assert (image.format, image.isa, image.version) == (kind, isa, "6.1.2-test")


def test_what_a_loader_needs_of_a_riscv_image():
    image = recognize_kernel(riscv(offset=0x400000, size=0x123456), what="it")
    assert (image.load_offset, image.size) == (0x400000, 0x123456)
    assert image.content == riscv(offset=0x400000, size=0x123456)


def test_zstd(tmp_path):
    if shutil.which("zstd") is None:
        pytest.skip("needs zstd (package zstd)")
    packed = subprocess.run(["zstd", "-c"], input=riscv(), capture_output=True, check=True).stdout
    assert recognize_kernel(packed, what="it").isa is Isa.RISCV64


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        bytes(100),
        riscv(flags=1),
        riscv(version=1 << 16),
        bzimage()[:0x210],
        gzip.compress(b"text"),
        gzip.compress(riscv())[:40],
        zboot(gzip.compress(riscv()))[:0x108],
    ],
)
def test_anything_else_is_one_sentence(data):
    with pytest.raises(ImageError, match=r"the file (is|cannot)"):
        recognize_kernel(data, what="the file")


def test_a_program_is_no_kernel():
    with open("/proc/self/exe", "rb") as file, pytest.raises(ImageError, match="is no kernel"):
        recognize_kernel(file.read(), what="the file")


@given(st.binary(max_size=700))
def test_nothing_else_happens_with_hostile_bytes(data):
    for sample in (data, b"MZ\0\0zimg" + data, riscv()[:56] + data, bzimage()[:0x240] + data):
        with contextlib.suppress(ImageError):
            recognize_kernel(sample, what="it")


def test_the_newest_of_a_root_comes_first(tmp_path):
    boot = tmp_path / "boot"
    boot.mkdir()
    for name in ("vmlinuz-6.9.0", "vmlinuz-6.10.1", "vmlinuz-0-rescue", "config-9.0"):
        (boot / name).write_bytes(riscv())
    (boot / "vmlinuz").symlink_to("vmlinuz-6.10.1")
    assert [kernel.path.resolve().name for kernel in installed_kernels(tmp_path)] == [
        "vmlinuz-6.10.1",
        "vmlinuz-6.9.0",
        "vmlinuz-0-rescue",
    ]


def test_a_root_s_own_kernel_is_taken_if_it_is_for_the_cpu(tmp_path):
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-9").write_bytes(arm64())
    (tmp_path / "boot/vmlinuz-8").write_bytes(riscv())
    (tmp_path / "lib/modules/6.1.2-test/kernel").mkdir(parents=True)
    kernel = find_kernel(Isa.RISCV64, rootfs=tmp_path)
    assert kernel.path.name == "vmlinuz-8"
    assert kernel.modules.version == "6.1.2-test"


def test_a_named_kernel_must_fit(tmp_path):
    path = tmp_path / "Image"
    path.write_bytes(riscv())
    assert find_kernel(Isa.RISCV64, path=path).image.version == "6.1.2-test"
    assert Kernel(path).modules is None
    with pytest.raises(UsageError, match="is a kernel for riscv64 and the guest's CPU is aarch64"):
        find_kernel(Isa.AARCH64, path=path)
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        find_kernel(Isa.RISCV64, path=tmp_path / "missing")


def test_an_isa_without_any_kernel_is_told_so(tmp_path):
    assert Isa.ALPHA not in DEBIAN_KERNELS
    with pytest.raises(UsageError, match="no kernel was given, and Debian has none for alpha"):
        find_kernel(Isa.ALPHA, rootfs=tmp_path)


def test_debian_s_kernel_is_fetched_once(tmp_path, monkeypatch):
    fetched = []

    class FakeArchive:
        def __init__(self, directory, *, suite, architecture):
            assert (suite, architecture) == ("trixie", "riscv64")

        def dependencies(self, package):
            assert package == "linux-image-riscv64"
            return ["linux-image-6.1.2-test"]

        def unpack(self, package, target):
            fetched.append(package)
            (target / "boot").mkdir(parents=True)
            (target / "boot/vmlinux-6.1.2-test").write_bytes(riscv())
            (target / "usr/lib/modules/6.1.2-test/kernel").mkdir(parents=True)

    monkeypatch.setattr("anyvirt.images.debian.Archive", FakeArchive)
    for _ in range(2):
        kernel = find_kernel(Isa.RISCV64, rootfs=tmp_path, store=Store(tmp_path / "store"))
        assert kernel.modules.version == "6.1.2-test"
    assert fetched == ["linux-image-6.1.2-test"]


@pytest.mark.slow
def test_debian_s_riscv64_kernel_is_recognized(riscv64_kernel):
    (kernel,) = installed_kernels(riscv64_kernel)
    image = kernel.image
    assert (image.format, image.isa) == (KernelFormat.RISCV_IMAGE, Isa.RISCV64)
    assert kernel.path.name == f"vmlinux-{image.version}"
    assert image.load_offset % (1 << 21) == 0
    assert image.size >= len(image.content)
    assert kernel.modules.version == image.version
