"""Make the virtual environment, with the package installed for development and one of its extras.

Usage: bootstrap.py ENVIRONMENT EXTRA

Runs on a machine with nothing but Python 3.11 or newer and writes nothing outside the checkout. Debian and
Ubuntu split ensurepip from Python; where it is missing, pip comes from the package python3-pip-whl, unpacked
into `.tools`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TOOLS = CHECKOUT / ".tools"
SYSTEM_WHEELS = Path("/usr/share/python-wheels")


class SetupError(Exception):
    """The environment cannot be made; the message is one sentence that says what to do."""


def make_environment(environment: Path, extra: str) -> None:
    """Make or complete `environment` with the package, editable, and its extra `extra`."""
    python = environment / "bin" / "python"
    if not _has_pip(python):
        _create(environment, python)
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-warn-script-location",
        "--cache-dir",
        str(TOOLS / "pip"),
    ]
    _run(
        [*command, "--editable", f"{CHECKOUT}[{extra}]"],
        "pip could not install the package and what it needs",
    )


def _has_pip(python: Path) -> bool:
    return (
        python.exists()
        and subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0
    )


def _create(environment: Path, python: Path) -> None:
    if importlib.util.find_spec("ensurepip") is not None:
        venv.create(environment, clear=True, with_pip=True)
        return
    venv.create(environment, clear=True, with_pip=False)
    wheel = _pip_wheel()
    _run(
        [str(python), f"{wheel}/pip", "install", "--quiet", "--no-index", str(wheel)],
        "pip could not install itself into the environment",
    )


def _pip_wheel() -> Path:
    # Imported here, because it wants the Python that main() has looked for.
    sys.path.insert(0, str(CHECKOUT / "src"))
    from anyvirt.images.debian import Archive, PackageError

    directories = [SYSTEM_WHEELS]
    if not list(SYSTEM_WHEELS.glob("pip-*.whl")):
        print("bootstrap: fetching pip (Debian package python3-pip-whl) into .tools", file=sys.stderr)
        try:
            directories.append(
                Archive(TOOLS / "debian").fetch("python3-pip-whl") / SYSTEM_WHEELS.relative_to("/")
            )
        except PackageError as error:
            raise SetupError(
                f"Python has no pip here and none can be fetched ({error}): install python3-venv"
            ) from None
    wheels = [wheel for directory in directories for wheel in directory.glob("pip-*.whl")]
    if not wheels:
        raise SetupError("package python3-pip-whl holds no wheel of pip: install python3-venv")
    return wheels[-1]


def _run(command: list[str], failure: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise SetupError(f"{failure}: its own message is above")


def main() -> int:
    """Make the environment that the command line names."""
    if sys.version_info < (3, 11):  # noqa: UP036 (an older Python is what this line is for)
        print(f"bootstrap: anyvirt needs Python 3.11 or newer and {sys.executable} is older", file=sys.stderr)
        return 1
    try:
        make_environment(Path(sys.argv[1]), sys.argv[2])
    except SetupError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
