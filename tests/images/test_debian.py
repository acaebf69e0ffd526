"""Fetching Debian packages: the machine's sources in both formats, and an archive of another architecture."""

import os
import struct

import pytest

from anyvirt.images.debian import (
    Archive,
    InconsistentArchiveError,
    PackageError,
    Source,
    machine_sources,
)


def test_sources_are_read_in_both_formats(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no.example/ bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main contrib\n"
        "deb-src http://src.example/ bookworm main\n"
    )
    (tmp_path / "sources.list.d" / "x.sources").write_text(
        "Types: deb deb-src\n# a comment\nURIs: http://two.example/debian\n"
        "Suites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /usr/k.gpg\n\n"
        "Types: deb\nEnabled: no\nURIs: http://off.example/\nSuites: bookworm\n"
    )
    assert machine_sources(tmp_path) == [
        Source("http://one.example/debian", "bookworm", "/k.gpg"),
        Source("http://two.example/debian", "bookworm", "/usr/k.gpg"),
        Source("http://two.example/debian", "bookworm-updates", "/usr/k.gpg"),
    ]


def test_a_machine_without_sources_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr("anyvirt.images.debian.machine_sources", list)
    with pytest.raises(PackageError, match="no source"):
        Archive(tmp_path)


def test_names_are_checked_before_they_reach_a_command(tmp_path):
    with pytest.raises(PackageError, match="not the name"):
        Archive(tmp_path).fetch("--help")


@pytest.mark.parametrize(
    ("complaint", "error"),
    [
        ("E: Failed to fetch Packages.xz  File has unexpected size (1 != 2)", InconsistentArchiveError),
        ("E: Failed to fetch Packages.xz  Hash Sum mismatch", InconsistentArchiveError),
        ("E: Unable to connect", PackageError),
    ],
)
def test_an_archive_that_is_being_updated_is_told_from_one_that_is_not_there(
    tmp_path, monkeypatch, complaint, error
):
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    with pytest.raises(PackageError) as caught:
        Archive(tmp_path / "archive").fetch("hello")
    assert caught.type is error


def test_without_a_network_there_are_no_lists_and_later_there_may_be(tmp_path, monkeypatch):
    # apt-get update ends with 0 then, and a warning.
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\necho 'W: Failed to fetch InRelease  Could not connect' >&2\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    archive = Archive(tmp_path / "archive")
    for _ in range(2):
        with pytest.raises(PackageError, match=r"no list of packages came from .*: is there a network\?"):
            archive.fetch("package")


def test_an_inconsistent_archive_is_asked_in_other_ways_before_it_is_given_up(tmp_path, monkeypatch):
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    log = tmp_path / "log"
    apt.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\n'
        "case \"$*\" in *CompressionTypes*) echo 'E: other' >&2;; *) echo 'E: Hash Sum mismatch' >&2;; esac\n"
        "exit 100\n"
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{apt.parent}:{os.environ['PATH']}")
    with pytest.raises(PackageError, match="E: other"):
        Archive(tmp_path / "archive").fetch("hello")
    calls = log.read_text().splitlines()
    assert [("By-Hash=force" in call, "No-Cache=true" in call) for call in calls] == [
        (False, False),
        (True, True),
        (True, True),
    ]
    assert not [call for call in calls if "AllowUnauthenticated" in call or "AllowInsecure" in call]


@pytest.mark.slow
def test_a_metapackage_names_the_present_kernel(riscv64_kernel):
    assert (riscv64_kernel / "boot").is_dir()
    assert riscv64_kernel.name.startswith("linux-image-6")


def test_a_foreign_program_arrives(riscv64_busybox):
    assert os.access(riscv64_busybox, os.X_OK)
    assert struct.unpack_from("<H", riscv64_busybox.read_bytes()[:64], 18) == (243,)


def test_what_a_package_needs_to_be_unpacked_is_among_its_dependencies(monkeypatch, tmp_path):
    """As of coreutils, all of whose libraries are named there."""
    archive = Archive(tmp_path)
    shown = "Package: x\nPre-Depends: liba (>= 2.38), libb:any\nDepends: libc | libd, libe\nDescription: x\n"
    monkeypatch.setattr(Archive, "_update_once", lambda self: None)
    monkeypatch.setattr("anyvirt.images.debian._output", lambda *words, cwd=None: shown)
    assert archive.dependencies("coreutils") == ["libc", "libe", "liba", "libb:any"]
