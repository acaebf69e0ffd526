"""Finding the control groups of hosts of every kind, from what their kernels write in /proc."""

from anyvirt.linux.cgroups.hierarchies import Hierarchy, find_hierarchies, parse_hierarchies

V1 = """\
31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
"""
V1_GROUPS = "3:cpu,cpuacct:/user.slice\n2:memory:/user.slice/one\n1:name=systemd:/user.slice/x.scope\n"


def test_version_1():
    found = parse_hierarchies(V1, V1_GROUPS)
    assert found.summary == "v1"
    assert found.unified is None
    assert found.legacy["memory"] == Hierarchy(
        "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/user.slice/one"
    )
    assert found.legacy["cpu"] == found.legacy["cpuacct"]
    assert found.legacy["cpu"].own == "/sys/fs/cgroup/cpu,cpuacct/user.slice"


def test_version_2():
    mountinfo = "30 20 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
    found = parse_hierarchies(mountinfo, "0::/user.slice/user-1000.slice/session-2.scope\n")
    assert found.summary == "v2"
    assert found.unified.own == "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope"


def test_both():
    mountinfo = V1 + "35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    found = parse_hierarchies(mountinfo, V1_GROUPS + "0::/\n")
    assert found.summary == "v1 and v2 (hybrid)"
    assert found.unified.own == "/sys/fs/cgroup/unified"


def test_inside_a_container_that_sees_its_group_as_the_root_of_the_mount():
    mountinfo = "30 20 0:26 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    found = parse_hierarchies(mountinfo, "4:memory:/docker/abc/inner\n")
    assert found.legacy["memory"].own == "/sys/fs/cgroup/memory/inner"
    outside = parse_hierarchies(mountinfo, "4:memory:/elsewhere\n")
    assert outside.legacy["memory"].own == "/sys/fs/cgroup/memory"


def test_none():
    found = parse_hierarchies("22 27 0:21 / /proc rw - proc proc rw\n", "0::/\n")
    assert found.summary == "none"
    assert found.controllers() == ()


def test_this_host():
    import os

    found = find_hierarchies()
    for hierarchy in (*found.legacy.values(), *filter(None, [found.unified])):
        assert os.path.isfile(f"{hierarchy.own}/cgroup.procs")
