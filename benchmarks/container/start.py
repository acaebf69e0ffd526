"""How long a container takes: from the request to the end of `true` in it, ours and its peers, in one run.

Every candidate runs the same program on the same small root filesystem, in turns of varying order, so that
what else the machine does meanwhile falls on all of them alike. Peers that are not installed, or do not work
here, are named. Run it with: python benchmarks/container/start.py [ROUNDS]
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.engines import get
from anyvirt.guest import Guest
from anyvirt.instance import Streams
from anyvirt.linux import kernel
from anyvirt.linux.cgroups import find_hierarchies

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from typing import NoReturn

WARM_UP = 3
SETTLING = 0.03
FLOOR = "posix_spawn (no isolation)"


def make_rootfs(directory: Path) -> Path:
    """A root filesystem with `true`, its libraries and the directories that containers need."""
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp"):
        (directory / name).mkdir(parents=True)
    program = shutil.which("true") or "/bin/true"
    shutil.copy(program, directory / "bin/true")
    for library in re.findall(r"(/\S+) \(0x", subprocess.check_output(["ldd", program], text=True)):
        target = directory / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    return directory


def command(*words: str) -> Callable[[], None]:
    """Run a program to its end; a failure is an error."""
    path = shutil.which(words[0])
    if path is None:
        raise FileNotFoundError(f"{words[0]} is not installed")

    def run() -> None:
        pid = os.posix_spawn(path, words, os.environ, file_actions=_quiet())
        check(os.waitpid(pid, 0)[1])

    return run


def check(status: int) -> None:
    """A candidate that fails is not measured."""
    if status != 0:
        raise RuntimeError(f"it does not work here (status {status})")


def _quiet() -> list[tuple[int, ...]]:
    return [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]  # type: ignore[misc]


def resident(rootfs: Path | None) -> Callable[[], None]:
    """Our Python interface, in this process."""
    engine = get("container")
    null = os.open(os.devnull, os.O_RDWR)
    guest = Guest(command=("/bin/true",), rootfs=rootfs)

    def run() -> None:
        with engine.start(guest, Streams(null, null, null)) as instance:
            check(instance.wait().shell)

    return run


def joining(rootfs: Path) -> Callable[[], None]:
    """A further program in a running container of ours."""
    null = os.open(os.devnull, os.O_RDWR)
    instance = get("container").start(Guest(rootfs=rootfs), Streams(null, null, null))

    def run() -> None:
        process = instance.exec(["/bin/true"], streams=Streams(null, null, null))
        check(process.wait().shell)
        process.close()

    return run


def bundle(directory: Path, rootfs: Path) -> Path:
    """An OCI bundle, as `runc spec` makes it, that runs `true` on the root filesystem."""
    directory.mkdir()
    subprocess.run(["runc", "spec"], cwd=directory, check=True)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true"]}
    config["process"].pop("rlimits", None)
    config["root"] = {"path": str(rootfs), "readonly": False}
    path.write_text(json.dumps(config))
    return directory


def bubblewrap(rootfs: Path) -> Callable[[], None]:
    """bubblewrap with all the namespaces it has."""
    words = ("bwrap", "--unshare-all", "--bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev")
    return command(*words, "/bin/true")


def candidates(directory: Path) -> dict[str, Callable[[], Callable[[], None]]]:
    """What is measured, by name: functions that give the function to time."""
    rootfs = make_rootfs(directory / "rootfs")
    elsewhere = WithoutVersion2()

    def oci(*words: str) -> Callable[[], None]:
        name = f"{words[0]}-bundle"
        place = directory / name if (directory / name).exists() else bundle(directory / name, rootfs)
        run = "-".join(("anyvirt", "benchmark", str(os.getpid())))
        if shutil.which(words[0]) is None:
            raise FileNotFoundError(f"{words[0]} is not installed")
        return lambda: elsewhere.run((*words, "run", "--bundle", str(place), run))

    cli = Path(sys.executable).with_name("anyvirt")
    return {
        FLOOR: lambda: command(str(rootfs / "bin/true")),
        "anyvirt, resident, own rootfs": lambda: resident(rootfs),
        "anyvirt, resident, host's root": lambda: resident(None),
        "anyvirt, exec in a running one": lambda: joining(rootfs),
        "anyvirt, command line": lambda: command(
            str(cli), "run", "--on", "container", "--rootfs", str(rootfs), "--", "/bin/true"
        ),
        "crun": lambda: oci("crun"),
        "crun, no cgroups": lambda: oci("crun", "--cgroup-manager=disabled"),
        "runc": lambda: oci("runc"),
        "bubblewrap (no cgroups)": lambda: bubblewrap(rootfs),
    }


class WithoutVersion2:
    """A process that sees no cgroup v2 beside v1, which crun 1.8 would refuse, and runs programs there."""

    def __init__(self) -> None:
        self._requests, requests = multiprocessing.Pipe()
        if os.fork() == 0:
            self._requests.close()
            self._serve(requests)
        requests.close()

    def run(self, words: tuple[str, ...]) -> None:
        """Run a program to its end."""
        self._requests.send(words)
        check(self._requests.recv())

    @staticmethod
    def _serve(requests: Connection) -> NoReturn:
        hierarchies = find_hierarchies()
        if hierarchies.legacy and hierarchies.unified and os.geteuid() == 0:
            kernel.unshare(kernel.CLONE_NEWNS)
            kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
            kernel.unmount(hierarchies.unified.mount_point)
        try:
            while True:
                words = requests.recv()
                pid = os.posix_spawnp(words[0], words, os.environ, file_actions=_quiet())
                requests.send(os.waitpid(pid, 0)[1])
        except EOFError:
            os._exit(0)


def measure(rounds: int) -> dict[str, list[float] | str]:
    """Milliseconds of each candidate in each round, or why it was left out."""
    results: dict[str, list[float] | str] = {}
    with tempfile.TemporaryDirectory() as name:
        ready = {}
        for candidate, prepare in candidates(Path(name)).items():
            try:
                run = prepare()
                for _ in range(WARM_UP):
                    run()
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                results[candidate] = f"left out: {error}"
            else:
                ready[candidate] = run
                results[candidate] = []
        order = random.Random(1)
        for _ in range(rounds):
            for candidate, run in order.sample(sorted(ready.items()), len(ready)):
                # What the kernel still does for the previous one (its network is taken down) falls on nobody.
                time.sleep(SETTLING)
                began = time.perf_counter()
                run()
                samples = results[candidate]
                assert isinstance(samples, list)
                samples.append((time.perf_counter() - began) * 1e3)
    return results


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    results = measure(rounds)
    floor = statistics.median(results[FLOOR])  # type: ignore[arg-type]
    print(
        f"{'start and end of `true`':34}{'median':>9}{'p5':>9}{'p95':>9}{'ratio':>8}   ({rounds} rounds, ms)"
    )
    for name, samples in results.items():
        if isinstance(samples, str):
            print(f"{name:34}{samples}")
            continue
        low, *_, high = statistics.quantiles(samples, n=20)
        median = statistics.median(samples)
        print(f"{name:34}{median:9.2f}{low:9.2f}{high:9.2f}{median / floor:8.1f}")


if __name__ == "__main__":
    main()
