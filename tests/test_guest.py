"""Guest and its parts are validated once, when they are made."""

import dataclasses
from pathlib import Path

import pytest

from anyvirt.errors import UsageError
from anyvirt.guest import (
    Disk,
    DiskFormat,
    Guest,
    Limits,
    Mount,
    Network,
    NetworkMode,
    Published,
    make_limits,
)
from anyvirt.isa.names import Isa


def test_a_guest_is_frozen_and_holds_tuples():
    guest = Guest(command=["ls", Path("/tmp")], env={"A": "1"})
    assert guest.command == ("ls", "/tmp")
    with pytest.raises(dataclasses.FrozenInstanceError):
        guest.hostname = "x"
    with pytest.raises(TypeError):
        guest.env["B"] = "2"


def test_the_caller_s_environment_mapping_is_copied():
    env = {"A": "1"}
    guest = Guest(env=env)
    env["A"] = "2"
    assert guest.env == {"A": "1"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"command": "ls -l"}, "sequence of words"),
        ({"command": [""]}, "empty"),
        ({"command": ["a\0b"]}, "NUL"),
        ({"env": {"": "x"}}, "environment variable"),
        ({"env": {"A=B": "x"}}, "environment variable"),
        ({"rootfs": "/does/not/exist"}, "does not exist"),
        ({"rootfs": "/etc/passwd"}, "not a directory"),
        ({"hostname": "-x"}, "hostname"),
        ({"hostname": "a b"}, "hostname"),
        ({"hostname": "a" * 65}, "hostname"),
        ({"workdir": "tmp"}, "absolute"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(parts, message):
    with pytest.raises(UsageError, match=message):
        Guest(**parts)


@pytest.mark.parametrize(
    "limits", [{"memory": 5}, {"cpus": 0}, {"cpus": float("nan")}, {"cpus": 1e6}, {"pids": 0}, {"memory": -1}]
)
def test_limits_no_guest_can_live_in_are_refused(limits):
    with pytest.raises(UsageError):
        Limits(**limits)


def test_limits_are_false_when_nothing_is_limited():
    assert not Limits()
    assert make_limits(memory="1G", cpus="0.5", pids=3) == Limits(memory=1 << 30, cpus=0.5, pids=3)


def test_mounts_are_parsed_as_the_command_line_writes_them(tmp_path):
    assert Mount.parse(f"{tmp_path}:/data") == Mount(tmp_path, "/data")
    assert Mount.parse(f"{tmp_path}:/data/:ro") == Mount(tmp_path, "/data", read_only=True)
    assert Mount.parse(f"{tmp_path}:/data/../data/x:rw").target == "/data/x"


@pytest.mark.parametrize(
    "text", ["", "x", ":/a", "/tmp:relative", "/tmp:/", "/tmp:/a:rx", "/tmp:/a:ro:b", "/nowhere:/a"]
)
def test_other_mounts_are_refused(text):
    with pytest.raises(UsageError):
        Mount.parse(text)


def test_disks_are_parsed_as_the_command_line_writes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").touch()
    assert Disk.parse("disk") == Disk(tmp_path / "disk", DiskFormat.RAW, read_only=False)
    assert Disk.parse("disk:qcow2:ro") == Disk(tmp_path / "disk", DiskFormat.QCOW2, read_only=True)
    assert Disk.parse("disk:ro:raw").read_only


@pytest.mark.parametrize(
    "text", ["", ":ro", "disk:rw", "disk:raw:qcow2", "disk:ro:ro", "/nowhere", "/dev", "/dev/null"]
)
def test_other_disks_are_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").touch()
    with pytest.raises(UsageError):
        Disk.parse(text)


def test_networks_are_parsed_as_the_command_line_writes_them():
    assert Network.parse("none") == Network(NetworkMode.NONE)
    assert Network.parse("user") == Network(NetworkMode.USER)
    assert Network.parse("tap") == Network(NetworkMode.TAP)
    assert Network.parse("tap:tap0") == Network(NetworkMode.TAP, "tap0")


@pytest.mark.parametrize(
    "text", ["", "host", "user:x", "none:", "tap:", "tap:a/b", "tap:a b", "tap:" + "x" * 16, "tap:a:b"]
)
def test_other_networks_are_refused(text):
    with pytest.raises(UsageError, match="network"):
        Network.parse(text)


def test_published_ports_are_parsed_as_the_command_line_writes_them():
    assert Published.parse("8080:80") == Published(8080, 80, "127.0.0.1", "tcp")
    assert Published.parse("0.0.0.0:53:5353/udp") == Published(53, 5353, "0.0.0.0", "udp")


@pytest.mark.parametrize(
    "text",
    ["", "80", "80:", ":80", "a:80", "0:80", "80:65536", "80:80/", "80:80/sctp", "::1:80:80", "1.2.3:80:80"],
)
def test_other_ports_are_refused(text):
    with pytest.raises(UsageError):
        Published.parse(text)


def test_ports_are_published_once_and_by_user_mode_networking():
    port = Published(8080, 80)
    Guest(network=Network.parse("user"), published=[port])
    for network in (None, Network.parse("none"), Network.parse("tap")):
        with pytest.raises(UsageError, match="ask for the network `user`"):
            Guest(network=network, published=[port])
    with pytest.raises(UsageError, match="published once"):
        Guest(network=Network.parse("user"), published=[port, Published(8080, 81)])


def test_what_is_booted_is_checked(tmp_path):
    kernel = tmp_path / "kernel"
    for parts, message in (
        ({"kernel": kernel}, "kernel .* does not exist"),
        ({"initrd": tmp_path}, "initial file system .* is not a file"),
        ({"append": "a\nb"}, "printable ASCII"),
        ({"append": "\N{SNOWMAN}"}, "printable ASCII"),
    ):
        with pytest.raises(UsageError, match=message):
            Guest(**parts)
    kernel.touch()
    assert Guest(kernel=str(kernel)).kernel == kernel
    with pytest.raises(UsageError, match="not both"):
        Guest(rootfs=tmp_path, initrd=kernel)


def test_the_host_has_an_isa():
    assert Isa.host() in Isa


@pytest.mark.parametrize("name", ["trace", "coverage"])
def test_what_is_recorded_is_a_command_and_the_file_is_where_the_caller_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert getattr(Guest(command=["true"], **{name: "file"}), name) == tmp_path / "file"
    with pytest.raises(UsageError, match=f"no command whose {name}"):
        Guest(**{name: "file"})


def test_an_idle_guest_cannot_be_deterministic():
    with pytest.raises(UsageError, match="an idle guest has nothing to run deterministically"):
        Guest(seed=0)
    assert Guest(command=["true"], seed=0).seed == 0
