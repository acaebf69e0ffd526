"""Fetch and unpack Debian packages of any suite and architecture, without root and without an environment.

Usage: debian_packages.py DIRECTORY [--suite SUITE] [--architecture ARCH] PACKAGE...
prints the directory into which each package was unpacked.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from anyvirt.images.debian import Archive, PackageError


def main() -> int:
    """Fetch the packages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--suite")
    parser.add_argument("--architecture")
    parser.add_argument("packages", nargs="+", metavar="package")
    options = parser.parse_args()
    try:
        archive = Archive(options.directory, suite=options.suite, architecture=options.architecture)
        for package in options.packages:
            print(archive.fetch(package))
    except PackageError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
