"""Disks of directories: each file system read back by its own tools."""

import os
import shutil
import subprocess

import pytest

from anyvirt.errors import UsageError
from anyvirt.images.disks import FileSystem, make_disk
from anyvirt.images.errors import ImageError

PATHS = os.environ["PATH"] + ":/usr/sbin:/sbin"


@pytest.fixture
def directory(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/file").write_bytes(b"content" * 10_000)
    (root / "etc/link").symlink_to("file")
    (root / "tool").write_bytes(b"#!")
    (root / "tool").chmod(0o755)
    return root


def tool(name, package):
    found = shutil.which(name, path=PATHS)
    if found is None:
        pytest.skip(f"needs {name} (package {package})")
    return found


def run(*command):
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_ext4(directory, tmp_path):
    debugfs, check = tool("debugfs", "e2fsprogs"), tool("e2fsck", "e2fsprogs")
    disk = tmp_path / "disk"
    make_disk(directory, disk, FileSystem.EXT4)
    run(check, "-fn", disk)
    assert run(debugfs, "-R", "cat /etc/file", disk) == b"content" * 10_000
    status = run(debugfs, "-R", "stat /tool", disk).decode()
    assert "Mode:  0755" in status
    make_disk(directory, disk, FileSystem.EXT4, size=64 << 20)
    assert disk.stat().st_size == 64 << 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "root"]


def test_erofs(directory, tmp_path):
    tool("mkfs.erofs", "erofs-utils")
    check, disk = tool("fsck.erofs", "erofs-utils"), tmp_path / "disk"
    make_disk(directory, disk, FileSystem.EROFS)
    run(check, f"--extract={tmp_path / 'out'}", disk)
    run("diff", "-r", "--no-dereference", directory, tmp_path / "out")
    assert disk.stat().st_size % 512 == 0


def test_squashfs(directory, tmp_path):
    tool("mksquashfs", "squashfs-tools")
    unpack, disk = tool("unsquashfs", "squashfs-tools"), tmp_path / "disk"
    make_disk(directory, disk, FileSystem.SQUASHFS)
    run(unpack, "-q", "-n", "-d", tmp_path / "out", disk)
    run("diff", "-r", "--no-dereference", directory, tmp_path / "out")


@pytest.mark.parametrize("kind", [FileSystem.EROFS, FileSystem.SQUASHFS])
def test_the_same_content_gives_the_same_disk(directory, tmp_path, kind):
    tool(*{"erofs": ("mkfs.erofs", "erofs-utils"), "squashfs": ("mksquashfs", "squashfs-tools")}[kind])
    for name in ("one", "two"):
        os.utime(directory / "etc/file")
        make_disk(directory, tmp_path / name, kind)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_mistakes_are_one_sentence(directory, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="there is no directory"):
        make_disk(tmp_path / "missing", tmp_path / "disk", FileSystem.EXT4)
    with pytest.raises(UsageError, match="which cannot be written, is that of its content"):
        make_disk(directory, tmp_path / "disk", FileSystem.EROFS, size=1 << 20)
    tool("mke2fs", "e2fsprogs")
    with pytest.raises(ImageError, match="mke2fs failed: "):
        make_disk(directory, tmp_path / "disk", FileSystem.EXT4, size=64 << 10)
    monkeypatch.setattr("anyvirt.images.disks._TOOL_PATHS", "")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match=r"mke2fs, which is not installed \(package e2fsprogs\)"):
        make_disk(directory, tmp_path / "disk", FileSystem.EXT4)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
