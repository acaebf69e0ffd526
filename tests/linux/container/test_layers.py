"""Which filesystems a container's root is made of, on hosts with mounts in all sorts of places."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyvirt.linux.container.layers import (
    Layer,
    LayerKind,
    MountPoint,
    parse_mount_points,
    plan_layers,
    read_mount_points,
)


def overlays(layers):
    return {layer.target: layer.source for layer in layers if layer.kind is LayerKind.OVERLAY}


def test_mountinfo_with_blanks_and_optional_fields():
    text = (
        "27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n"
        "28 27 0:25 / /mnt/a\\040b\\134c ro - tmpfs none ro\n"
    )
    assert parse_mount_points(text) == (MountPoint("/", "ext4"), MountPoint("/mnt/a b\\c", "tmpfs"))


def test_this_hosts_own_root():
    points = read_mount_points()
    assert points[0].path.startswith("/")
    layers = plan_layers("/", points, privileged=True)
    assert layers[0] == Layer(LayerKind.OVERLAY, "/", "/")


def test_each_filesystem_below_gets_a_layer_parents_first(tmp_path):
    (tmp_path / "home/user").mkdir(parents=True)
    (tmp_path / "file").touch()
    root = str(tmp_path)
    points = (
        MountPoint("/", "ext4"),
        MountPoint(f"{root}/home/user", "ext4"),
        MountPoint(f"{root}/home", "xfs"),
        MountPoint(f"{root}/home", "ext4"),
        MountPoint(f"{root}/proc", "proc"),
        MountPoint(f"{root}/file", "ext4"),
        MountPoint(f"{root}-elsewhere", "ext4"),
    )
    assert plan_layers(root, points, privileged=True) == [
        Layer(LayerKind.OVERLAY, root, "/"),
        Layer(LayerKind.FILE, f"{root}/file", "/file"),
        Layer(LayerKind.OVERLAY, f"{root}/home", "/home"),
        Layer(LayerKind.OVERLAY, f"{root}/home/user", "/home/user"),
    ]


@pytest.mark.parametrize("own", ["/proc/sys/fs/binfmt_misc", "/sys/fs/cgroup", "/dev/shm", "/run/user/1000"])
def test_what_the_container_has_of_its_own_is_left_out(own):
    points = (MountPoint("/", "ext4"), MountPoint(own, "tmpfs"))
    assert plan_layers("/", points, privileged=True) == [Layer(LayerKind.OVERLAY, "/", "/")]


def test_a_user_with_nothing_mounted_below_needs_one_layer(tmp_path):
    layers = plan_layers(str(tmp_path), (MountPoint("/", "ext4"),), privileged=False)
    assert layers == [Layer(LayerKind.OVERLAY, str(tmp_path), "/")]


NAMES = st.sampled_from("abc")
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@given(directories=st.sets(PATHS, max_size=12), mounted=st.sets(PATHS, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_without_privileges_no_layer_has_a_mount_below_it(tmp_path_factory, directories, mounted):
    base = str(tmp_path_factory.mktemp("root"))
    for path in (*directories, *mounted):
        os.makedirs(f"{base}/{path}", exist_ok=True)
    points = tuple(MountPoint(f"{base}/{path}", "ext4") for path in mounted)
    layers = plan_layers(base, points, privileged=False)
    for source in overlays(layers).values():
        assert not any(point.path.startswith(f"{source}/") for point in points)
    made = {layer.target for layer in layers}
    for path in (*directories, *mounted):
        # Every directory of the host is shown, by its own layer or by one above it.
        above = [f"/{path}".rsplit("/", count)[0] or "/" for count in range(path.count("/") + 2)]
        assert any(target in made for target in above)
    order = [layer.target for layer in layers]
    assert all(
        os.path.dirname(target) == "/" or os.path.dirname(target) in order[: index + 1]
        for index, target in enumerate(order)
        if target != "/"
    )


def test_links_and_files_at_the_top(tmp_path):
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    points = (MountPoint(f"{tmp_path}/usr/bin", "ext4"),)
    layers = plan_layers(str(tmp_path), points, privileged=False)
    kinds = {layer.target: layer.kind for layer in layers}
    assert kinds == {
        "/": LayerKind.DIRECTORY,
        "/bin": LayerKind.LINK,
        "/file": LayerKind.FILE,
        "/usr": LayerKind.DIRECTORY,
        "/usr/bin": LayerKind.OVERLAY,
    }
