"""What is said of a host that lets no container start."""

import pytest

from anyvirt.linux.container import obstacles

ROOT = "21 1 254:0 / / rw,relatime - ext4 /dev/root rw"
INSIDE = "22 21 0:20 / /jail/proc rw - proc proc rw"
FILESYSTEMS = "nodev\tproc\n\text4\nnodev\toverlay"


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        ({}, "run as root"),
        ({"/proc/sys/user/max_user_namespaces": "0"}, "user.max_user_namespaces"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, "unprivileged_userns_clone"),
        ({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}, "apparmor_restrict"),
        ({"/proc/self/mountinfo": INSIDE}, "leave the chroot"),
        ({"/proc/filesystems": "nodev\tproc"}, "modprobe overlay"),
    ],
)
def test_the_remedy_fits_the_obstacle(monkeypatch, files, remedy):
    host = {"/proc/self/mountinfo": f"{ROOT}\n{INSIDE}", "/proc/filesystems": FILESYSTEMS, **files}
    monkeypatch.setattr(obstacles, "_read", lambda path: host.get(path, ""))
    assert remedy in obstacles.find_remedy()


def test_the_host_is_described():
    assert set(obstacles.describe_host()) == {"cgroups", "limits", "system call filter"}
