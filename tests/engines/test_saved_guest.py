"""What has to be known of a guest to go on with it, and what is refused before any machine is made."""

import json
from pathlib import Path

import pytest

import anyvirt
from anyvirt.engines import get
from anyvirt.engines.saved_guest import SavedGuest, described
from anyvirt.errors import UnsupportedError, UsageError
from anyvirt.guest import Disk, Guest, Limits, Mount, Network, Published
from anyvirt.instance import TerminalSize


@pytest.fixture
def guest(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "share").mkdir()
    (tmp_path / "disk.qcow2").write_bytes(b"")
    return Guest(
        command=["sh", "-c", "true"],
        rootfs=tmp_path / "root",
        env={"COLOUR": "red"},
        workdir="/srv",
        hostname="box",
        limits=Limits(memory=256 << 20, cpus=2),
        mounts=[Mount(tmp_path / "share", "/srv", read_only=True)],
        disks=[Disk.parse(f"{tmp_path}/disk.qcow2:qcow2")],
        network=Network.parse("user"),
        published=[Published.parse("8080:80")],
        vsock=tmp_path / "socket",
    )


def save(directory, guest, has_terminal=False):
    """As a monitor does, but for the machine."""
    engine = get("interpreter")
    instance = {
        "order": list(engine.machine_order(guest).message()),
        "conversation": {"guest": described(engine.name, guest, has_terminal=has_terminal)},
    }
    directory.mkdir()
    (directory / "instance.json").write_text(json.dumps(instance))
    return directory


def test_a_guest_comes_back_as_it_was(guest, tmp_path):
    saved = SavedGuest.read(save(tmp_path / "s", guest))
    assert saved.guest == guest
    assert saved.engine == "interpreter" and not saved.has_terminal
    assert saved.order == get("interpreter").machine_order(guest)


def test_an_idle_guest_on_the_host_s_root(tmp_path):
    saved = SavedGuest.read(save(tmp_path / "s", Guest()))
    assert saved.guest.command == () and saved.guest.rootfs is None and saved.guest.disks == ()


def test_a_terminal_goes_with_a_terminal(tmp_path):
    directory = save(tmp_path / "s", Guest(command=["sh"]), has_terminal=True)
    with pytest.raises(UsageError, match="is on a terminal"):
        anyvirt.restore(directory)
    with pytest.raises(UsageError, match="is not on a terminal"):
        anyvirt.restore(save(tmp_path / "t", Guest(command=["sh"])), terminal=TerminalSize())


def test_what_is_not_there_any_more_is_named(guest, tmp_path):
    directory = save(tmp_path / "s", guest)
    (tmp_path / "share").rmdir()
    with pytest.raises(UsageError, match=r"mount source .*share does not exist"):
        anyvirt.restore(directory)
    with pytest.raises(UsageError, match="there is no snapshot"):
        anyvirt.restore(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is not one of a guest"):
        anyvirt.restore(tmp_path / "empty")


@pytest.mark.parametrize(
    "change", [b"", b"{}", b"[]", b'{"order": [], "conversation": {"guest": []}}', b"\xff"]
)
def test_a_damaged_one_is_one_sentence(tmp_path, change):
    directory = Path(save(tmp_path / "s", Guest()))
    (directory / "instance.json").write_bytes(change)
    with pytest.raises(UsageError, match=r"is damaged: instance\.json") as error:
        anyvirt.restore(directory)
    assert "\n" not in str(error.value)


def test_an_altered_one_is_refused_by_the_monitor(tmp_path):
    """Which finds that the machine is not there at all."""
    with pytest.raises(anyvirt.AnyvirtError, match="is damaged"):
        anyvirt.restore(save(tmp_path / "s", Guest()))


def test_engines_of_processes_have_none(tmp_path):
    with pytest.raises(UnsupportedError, match=r"no snapshot: .*; translator or interpreter can"):
        anyvirt.restore(save(tmp_path / "s", Guest()), on="native")
    with anyvirt.start(Guest(command=["true"]), on="native") as instance:
        with pytest.raises(UnsupportedError, match="native has no snapshot"):
            instance.snapshot(tmp_path / "t")
        instance.wait(30)
