"""What a test does with its guest: commands, files, ports; in containers, which are quick to be had."""

import io
import os
import tarfile

import pytest

from anyvirt.engines import get
from anyvirt.errors import AnyvirtError, CommandNotFoundError, GuestTimeoutError, UsageError
from anyvirt.guest import Guest
from anyvirt.testing.command import CommandFailedError
from anyvirt.testing.maker import GuestMaker


@pytest.fixture
def box():
    availability = get("container").probe()
    if not availability.available:
        pytest.skip("engine container is not available: " + availability.reason)
    with GuestMaker() as maker, maker.guest(get("container"), Guest(env={"COLOUR": "blue"})) as guest:
        yield guest


def test_a_command_s_outputs_and_status_come_back(box):
    result = box.run(["sh", "-c", "cat; echo oops >&2; exit 3"], input="in\n")
    assert (result.stdout, result.stderr, result.status, result.succeeded) == ("in\n", "oops\n", 3, False)
    assert 0 < result.seconds < 60
    assert box.run(["sh", "-c", "kill -9 $$"]).status == 128 + 9
    assert box.run(["printf", "\\377"]).raw_stdout == b"\xff"


def test_environment_and_working_directory(box):
    result = box.run(["sh", "-c", "echo $COLOUR $SIZE; pwd"], env={"SIZE": "big"}, workdir="/usr")
    assert result.stdout == "blue big\n/usr\n"


def test_a_command_that_is_checked_tells_what_it_said(box):
    assert box.check(["echo", "hi"]).stdout == "hi\n"
    with pytest.raises(CommandFailedError) as caught:
        box.check(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert str(caught.value) == (
        "'sh -c echo out; echo err >&2; exit 7' ended with status 7 in the container guest\n"
        "stdout: out\nstderr: err"
    )
    assert caught.value.result.status == 7
    with pytest.raises(CommandFailedError):
        box.shell("false")


def test_mistakes(box):
    with pytest.raises(UsageError, match="sequence of words"):
        box.run("ls -l")
    with pytest.raises(CommandNotFoundError):
        box.run(["no-such-program"])
    with pytest.raises(UsageError, match="has no machine"):
        _ = box.machine
    assert box.console == ""


def test_a_command_that_takes_too_long_is_killed(box):
    script = "echo begun; echo $$ > /tmp/pid; exec sleep 100"
    with pytest.raises(GuestTimeoutError, match=r"after 0\.5 seconds; it said: begun"):
        box.run(["sh", "-c", script], timeout=0.5)
    box.wait_until(["sh", "-c", "! kill -0 $(cat /tmp/pid)"])


def test_commands_in_the_background(box):
    running = box.start(["sh", "-c", "echo begun; while ! [ -e /tmp/go ]; do sleep 0.02; done; echo done"])
    assert running.is_running
    with pytest.raises(GuestTimeoutError):
        running.wait(0.05)
    box.write("/tmp/go", "")
    assert running.wait().stdout == "begun\ndone\n"
    assert not running.is_running
    stubborn = box.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done"])
    while "ready" not in stubborn.stdout:
        assert stubborn.is_running
    assert stubborn.stop(timeout=0.2).status == 128 + 9
    box.start(["sleep", "1000"])  # it ends with the guest


def test_files_go_in_and_come_out(box, tmp_path):
    content = os.urandom(300_000)
    box.write("/new/directory/file", content, mode=0o750)
    assert box.read("/new/directory/file") == content
    assert box.shell("stat -c %a /new/directory/file") == "750\n"
    with pytest.raises(CommandFailedError, match="No such file"):
        box.read("/not/there")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho run\n")
    script.chmod(0o755)
    box.put(script, "/opt/script")
    assert box.check(["/opt/script"]).stdout == "run\n"
    box.get("/opt/script", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == script.read_text()


def test_directories_go_in_and_come_out(box, tmp_path):
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_text("here")
    (source / "link").symlink_to("deep/er/file")
    box.put(source, "/opt/tree")
    assert box.shell("cd /opt/tree; find . | sort; cat link; stat -c %U deep") == (
        ".\n./deep\n./deep/er\n./deep/er/file\n./link\nhereroot\n"
    )
    box.get("/opt/tree", tmp_path / "back")
    assert (tmp_path / "back/link").read_text() == "here"
    assert (tmp_path / "back/deep/er/file").read_text() == "here"


@pytest.mark.parametrize("name", ["../outside", "/tmp/anyvirt-outside"])
def test_a_guest_cannot_put_files_elsewhere_on_the_host(box, tmp_path, name):
    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../.."
        tar.addfile(link)
    box.write("/evil.tar", evil.getvalue())
    box.write("/evil-bin/tar", "#!/bin/sh\ncat /evil.tar\n", mode=0o755)
    tool = box.shell("command -v tar").strip()
    box.shell(f"cp /evil-bin/tar {tool}")
    target = tmp_path / "here" / "target"
    target.parent.mkdir()
    with pytest.raises(AnyvirtError, match="cannot be copied"):
        box.get("/etc", target)
    assert not (target.parent / "outside").exists()
    assert not os.path.exists("/tmp/anyvirt-outside")


def test_waiting_for_a_condition(box):
    box.start(["sh", "-c", "sleep 0.3; touch /tmp/there"])
    assert box.wait_until(["test", "-e", "/tmp/there"]).succeeded
    with pytest.raises(GuestTimeoutError, match=r"still after 0\.2 seconds, 'sh -c echo no; false' ended"):
        box.wait_until(["sh", "-c", "echo no; false"], timeout=0.2)


def test_paused_guests_stand_still(box):
    box.start(["sh", "-c", "while :; do echo x >> /tmp/ticks; sleep 0.01; done"])
    box.wait_until(["test", "-s", "/tmp/ticks"])
    box.pause()
    box.resume()
    before = len(box.read("/tmp/ticks"))
    box.wait_until(["sh", "-c", f"[ $(wc -c < /tmp/ticks) -gt {before} ]"])
