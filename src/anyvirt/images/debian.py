"""Debian packages of any suite and architecture, fetched from the machine's own archive without root.

The machine's apt is not touched: lists, cache and status live in a directory given by the caller. The
archive and its signing keys are those of the machine's own sources; suite and architecture are exchanged.
Needs nothing but the standard library, apt-get and dpkg-deb: it also serves before there is an environment.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOURCES = Path("/etc/apt")
_UPDATE_SUITES = re.compile(r"-(updates|backports|security|proposed.*)$")
_TIMEOUT = 600
_INCONSISTENT = ("unexpected size", "Hash Sum mismatch", "Mirror sync in progress")
"""What apt-get says of an archive that is being updated, or mixed with an older one by a cache on the way."""
_WAYS_TO_UPDATE: tuple[dict[str, str], ...] = (
    {},
    {"Acquire::http::No-Cache": "true", "Acquire::By-Hash": "force"},
    {
        "Acquire::http::No-Cache": "true",
        "Acquire::By-Hash": "force",
        "Acquire::CompressionTypes::Order::": "gz",
    },
)
"""Options for one attempt after the other to get lists that fit their signed index, which is checked in each:
as always; past caches and by names that are hashes of the content; the same, in another compression."""


class PackageError(AnyvirtError):
    """A package cannot be had here; the message is one sentence."""


class InconsistentArchiveError(PackageError):
    """The archive's files contradict its signed index: its mirror is in the middle of an update."""


@dataclass(frozen=True)
class Source:
    """One archive that the machine's apt uses."""

    uri: str
    suite: str
    signed_by: str


def machine_sources(directory: Path = SOURCES) -> list[Source]:
    """The `deb` archives in `directory`'s sources.list and sources.list.d, in both of apt's formats."""
    sources: list[Source] = []
    for path in (directory / "sources.list", *sorted((directory / "sources.list.d").glob("*.list"))):
        if path.is_file():
            sources += _one_line_sources(path.read_text())
    for path in sorted((directory / "sources.list.d").glob("*.sources")):
        sources += _deb822_sources(path.read_text())
    return sources


def _one_line_sources(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)", line)
        if match:
            signed_by = re.search(r"signed-by=(\S+)", match["options"] or "", re.IGNORECASE)
            yield Source(match["uri"], match["suite"], signed_by[1] if signed_by else "")


def _deb822_sources(text: str) -> Iterator[Source]:
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
        fields = {
            name.strip().lower(): value.strip()
            for name, separator, value in (line.partition(":") for line in lines if not line.startswith(" "))
            if separator
        }
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
            for uri in fields.get("uris", "").split():
                for suite in fields.get("suites", "").split():
                    yield Source(uri, suite, fields.get("signed-by", ""))


def _codename() -> tuple[str, str]:
    """The distribution and its release, as os-release(5) names them."""
    text = Path("/etc/os-release").read_text()
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    return values.get("ID", ""), values.get("VERSION_CODENAME", "")


class Archive:
    """The machine's archive with another suite or architecture, kept in `directory`."""

    types = "deb"
    """What kind of packages its lists are of (sources.list(5))."""

    def __init__(self, directory: Path, *, suite: str | None = None, architecture: str | None = None) -> None:
        distribution, codename = _codename()
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise PackageError(
                "packages are fetched with apt-get and dpkg-deb, and this machine has not both"
            )
        if suite is not None and distribution != "debian":
            raise PackageError(
                f"suite {suite} is one of Debian's and this machine's packages are {distribution}'s"
            )
        self.suite = suite or codename
        self.architecture = architecture or _output("dpkg", "--print-architecture").strip()
        self.directory = directory.resolve() / f"{self.suite}-{self.architecture}"
        self._sources = [
            source
            for source in machine_sources()
            if source.suite == codename and not _UPDATE_SUITES.search(source.suite)
        ]
        if not self._sources:
            raise PackageError(f"this machine's apt has no source for {codename or 'its own release'}")

    def fetch(self, package: str) -> Path:
        """The directory into which `package` is unpacked, downloading it unless it is there already."""
        _check_name(package)
        target = self.directory / "packages" / package
        with self._locked():
            if not target.is_dir():
                self._unpack(package, target)
        return target

    def unpack(self, package: str, target: Path) -> None:
        """Download `package` and unpack it as the new directory `target`, in a directory that is there."""
        _check_name(package)
        with self._locked():
            self._unpack(package, target)

    def _unpack(self, package: str, target: Path) -> None:
        """The lists are those of the first time; if the archive has moved on meanwhile, they are renewed."""
        kept = self._updated.exists()
        self._update_once()
        try:
            self._download(package, target)
        except PackageError:
            if not kept:
                raise
            self._updated.unlink()
            self._update_once()
            self._download(package, target)

    @property
    def _updated(self) -> Path:
        """Shows that there are lists of packages."""
        return self.directory / "updated"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def dependencies(self, package: str) -> list[str]:
        """The names of the packages that `package` depends on, in order; of alternatives the first.

        Those that it even needs to be unpacked (Pre-Depends) come last.
        A metapackage such as linux-image-amd64 names the present version of what it stands for this way.
        """
        _check_name(package)
        with self._locked():
            self._update_once()
            shown = _output("apt-cache", *self._options(), "show", "--no-all-versions", package)
        fields = [re.search(rf"^{name}: (.*)$", shown, re.MULTILINE) for name in ("Depends", "Pre-Depends")]
        return [item.split()[0] for found in fields if found for item in found[1].split(",")]

    def closure(self, *packages: str) -> list[str]:
        """The names of these packages and of all that they need, as apt would install them on nothing.

        Raises PackageError, also where a dependency cannot be had.
        """
        for package in packages:
            _check_name(package)
        with self._locked():
            self._update_once()
            words = ("--simulate", "--no-install-recommends", "install", *packages)
            shown = _output("apt-get", "-q", *self._options(), *words)
        return re.findall(r"^Inst (\S+)", shown, re.MULTILINE)

    def _options(self, more: Mapping[str, str] | None = None) -> list[str]:
        settings: dict[str, object] = {
            "Dir::State": self.directory / "state",
            "Dir::State::status": self.directory / "status",
            "Dir::Cache": self.directory / "cache",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": self.directory / "sources.d",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "",
            "APT::Get::List-Cleanup": "false",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            **(more or {}),
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _apt_get(self, *words: str, cwd: Path, options: Mapping[str, str] | None = None) -> None:
        """Run apt-get on this archive alone. Raises PackageError."""
        _output("apt-get", "-q", *self._options(options), *words, cwd=cwd)

    def _update_once(self) -> None:
        if self._updated.exists():
            return
        for name in ("state/lists/partial", "cache/archives/partial", "sources.d"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "status").touch()
        paragraphs = [
            f"Types: {self.types}\nURIs: {source.uri}\nSuites: {self.suite}\nComponents: main\n"
            + (f"Signed-By: {source.signed_by}\n" if source.signed_by else "")
            for source in self._sources
        ]
        (self.directory / "sources.d" / "machine.sources").write_text("\n".join(paragraphs))
        self._update()
        # apt-get update succeeds without a network, too.
        lists = self.directory / "state/lists"
        if not any((*lists.glob("*_Packages*"), *lists.glob("*_Sources*"))):
            places = ", ".join(sorted({source.uri for source in self._sources}))
            raise PackageError(f"no list of packages came from {places}: is there a network?")
        self._updated.touch()

    def _update(self) -> None:
        for options in _WAYS_TO_UPDATE:
            try:
                self._apt_get("update", cwd=self.directory, options=options)
            except InconsistentArchiveError as error:
                inconsistent = error
            else:
                return
        raise inconsistent

    def _download(self, package: str, target: Path) -> None:
        download = self.directory / f"download-{package}"
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir(parents=True)
        try:
            self._apt_get("download", package, cwd=download)
            archives = list(download.glob("*.deb"))
            if len(archives) != 1:
                raise PackageError(f"apt-get downloaded {len(archives)} files for {package}")
            _output("dpkg-deb", "-x", str(archives[0]), str(download / "root"))
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(download / "root", target)
        finally:
            shutil.rmtree(download, ignore_errors=True)


def _check_name(package: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", package):
        raise PackageError(f"{package!r} is not the name of a Debian package")


def _output(*command: str, cwd: Path | None = None) -> str:
    try:
        completed = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PackageError(f"{command[0]} had not ended after {_TIMEOUT} seconds") from None
    if completed.returncode != 0:
        lines = [line for line in completed.stderr.splitlines() if line.strip()]
        if any(sign in completed.stderr for sign in _INCONSISTENT):
            raise InconsistentArchiveError(
                "the archive's lists of packages are not those that its signed index names, however they are "
                "asked for: its mirror is being updated, try again later"
            )
        raise PackageError(f"{command[0]} failed: {lines[-1] if lines else 'it gave no reason'}")
    return completed.stdout
