"""Source packages of the machine's own Debian release, fetched once and kept, and how they are compiled."""

import shutil
import subprocess
from pathlib import Path

from anyvirt.images.debian import Archive, PackageError

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".tools" / "benchmarks"


class SourceArchive(Archive):
    """The archive of source packages."""

    types = "deb-src"

    def __init__(self, directory):
        super().__init__(directory)
        if shutil.which("dpkg-source") is None:
            raise PackageError("source packages are unpacked with dpkg-source (package dpkg-dev)")

    def fetch(self, package):
        """The directory with the unpacked sources of `package`, downloading them unless they are there."""
        target = self.directory / "packages" / package
        with self._locked():
            if not target.is_dir():
                self._update_once()
                self._fetch_sources(package, target)
        return target

    def _fetch_sources(self, package, target):
        download = self.directory / f"download-{package}"
        shutil.rmtree(download, ignore_errors=True)
        download.mkdir(parents=True)
        try:
            self._apt_get("source", "--only-source", package, cwd=download)
            directories = [path for path in download.iterdir() if path.is_dir()]
            if len(directories) != 1:
                raise PackageError(f"apt-get unpacked {len(directories)} directories for {package}")
            target.parent.mkdir(parents=True, exist_ok=True)
            directories[0].rename(target)
        finally:
            shutil.rmtree(download, ignore_errors=True)


def compile_program(compiler, files, output, *, flags=(), libraries=()):
    """Compile and link a static program in one step. Raises PackageError with the compiler's words."""
    partial = output.with_suffix(".partial")
    command = [
        compiler,
        "-O2",
        "-ffp-contract=off",
        "-static",
        "-w",
        *flags,
        *files,
        "-o",
        partial,
        *libraries,
    ]
    run_step(command)
    partial.rename(output)


def run_step(command, *, cwd=None):
    """Run a step of a build. Raises PackageError."""
    try:
        completed = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise PackageError(f"{command[0]} is not installed") from error
    if completed.returncode:
        lines = [line for line in completed.stderr.splitlines() if line.strip()] or ["it gave no reason"]
        told = next((line for line in lines if "error" in line.lower()), lines[-1])
        raise PackageError(f"{command[0]} failed: {told}")
