"""Machines that are booted once: what is kept, what is not, and what copies have in common."""

import gc
import os
import shutil

import pytest

from anyvirt.engines import get
from anyvirt.errors import GuestStartError
from anyvirt.guest import Disk, Guest, make_limits
from anyvirt.testing import template
from anyvirt.testing.booted import BootedKind
from anyvirt.testing.maker import GuestMaker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def maker(stored_kernel):
    with GuestMaker() as made:
        yield made


def fresh(maker, engine="translator", **parts):
    return maker.guest(get(engine), Guest(**parts))


def test_copies_are_fresh_and_apart(maker):
    with fresh(maker) as one, fresh(maker) as other:
        one.write("/tmp/mine", "one")
        other.write("/tmp/mine", "other")
        assert (one.read("/tmp/mine"), other.read("/tmp/mine")) == (b"one", b"other")
        one.start(["sleep", "1000"])
    with fresh(maker) as third:
        assert not third.run(["test", "-e", "/tmp/mine"]).succeeded
        assert "sleep" not in third.shell("ps")


def test_both_engines_go_on_from_one_boot(maker, monkeypatch):
    with fresh(maker) as guest:
        assert guest.machine.tier == "auto"
    monkeypatch.setattr(template, "boot", None)
    with fresh(maker, "interpreter") as guest:
        assert guest.machine.tier == "interpreter"
        assert guest.check(["uname", "-m"]).stdout == "riscv64\n"


def test_a_snapshot_serves_the_next_run_unless_it_is_damaged(maker, monkeypatch):
    with fresh(maker):
        pass
    kind = BootedKind.of(get("translator"), Guest(), shell=False)
    booted = []

    def boot(kind):
        booted.append(kind)
        raise GuestStartError("it would boot")

    monkeypatch.setattr(template, "boot", boot)
    with GuestMaker() as later, fresh(later) as guest:
        assert guest.check(["true"]).succeeded
    with GuestMaker(use_kept=False) as later, pytest.raises(GuestStartError, match="it would boot"):
        fresh(later)
    with GuestMaker() as later, pytest.raises(GuestStartError, match="it would boot"):
        fresh(later, limits=make_limits(memory="300M"))
    assert len(booted) == 2
    (place,) = [path for path in (template.cache_directory() / "booted").iterdir() if path.is_dir()]
    with (place / "memory.0").open("r+b") as memory:
        memory.seek(100)
        memory.write(b"damage")
    with pytest.raises(GuestStartError, match="it would boot"):
        template.Template(kind, use_kept=True)
    assert not place.exists()


def test_nothing_is_left_of_guests(maker):
    def use(count):
        for _ in range(count):
            with fresh(maker) as guest:
                guest.start(["sleep", "1000"])
            with maker.machine(get("translator"), Guest()):
                pass
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    # The first ones start what serves all of them, such as the compiler's process.
    before = use(2)
    assert use(6) < before + 6


def test_a_guest_that_ends_is_told(maker):
    with fresh(maker) as guest:
        with pytest.raises(GuestStartError, match="has ended"):
            guest.run(["sh", "-c", "echo c > /proc/sysrq-trigger"])
        assert "sysrq" in guest.console
    with fresh(maker) as guest:
        guest.pause()
        with pytest.raises(GuestStartError, match="the guest is paused"):
            guest.run(["true"])


def test_a_root_of_the_user_s_is_booted_for_the_run_only(maker, riscv64_busybox, tmp_path):
    for name in ("bin", "dev", "proc", "sys", "tmp", "run"):
        (tmp_path / name).mkdir()
    shutil.copy(riscv64_busybox, tmp_path / "bin/busybox")
    kept = sorted((template.cache_directory() / "booted").iterdir())
    for _ in range(2):
        with fresh(maker, rootfs=tmp_path, workdir="/tmp") as guest:
            assert guest.check(["/bin/busybox", "pwd"]).stdout == "/tmp\n"
    assert sorted((template.cache_directory() / "booted").iterdir()) == kept


def test_disks_are_each_copy_s_own(tmp_path):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    write = "echo {} | dd of=/dev/vda conv=fsync 2>/dev/null"
    with GuestMaker() as maker:
        guests = [fresh(maker, disks=[Disk(path)]) for _ in range(2)]
        try:
            for number, guest in enumerate(guests):
                guest.shell(write.format(number))
            assert [guest.shell("head -c 2 /dev/vda") for guest in guests] == ["0\n", "1\n"]
        finally:
            for guest in guests:
                guest.close()
    assert path.read_bytes() == bytes(16 << 20) and list(tmp_path.iterdir()) == [path]
