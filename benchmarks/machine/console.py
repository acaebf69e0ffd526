"""Running a kernel on our machine and on QEMU's, with what the guest prints handed over as it comes."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import anyvirt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

APPEND = "console=ttyS0 panic=-1 quiet"
MEMORY = "512M"
TIMEOUT = 300


def run_ours(kernel: Path, initrd: Path, print_: Callable[[bytes], None], **parts: Any) -> None:
    """To the machine's end."""
    with anyvirt.Machine(kernel=kernel, initrd=initrd, append=APPEND, memory=MEMORY, **parts) as machine:
        machine.console.on_output = print_
        machine.run(seconds=TIMEOUT)


def run_qemu(
    kernel: Path, initrd: Path, print_: Callable[[bytes], None], *words: str, pass_fds: Sequence[int] = ()
) -> None:
    """To the end of its output; `words` are further ones for its command line."""
    command = ["qemu-system-riscv64", "-M", "virt", "-m", MEMORY, "-kernel", os.fspath(kernel)]
    command += ["-initrd", os.fspath(initrd), "-append", APPEND, "-display", "none", "-monitor", "none"]
    command += ["-serial", "stdio", "-no-reboot", *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0, pass_fds=pass_fds
    ) as process:
        assert process.stdout is not None
        try:
            while piece := process.stdout.read(4096):
                print_(piece)
        finally:
            process.kill()
