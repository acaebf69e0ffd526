"""Layouts and constants that the emulation takes for granted, against what C compilers say of both ISAs."""

import re
import struct
from pathlib import Path

import pytest

from anyvirt.linux.emulation import abi, frames, signal_types
from anyvirt.linux.emulation.image import Auxiliary

from .conftest import run

STAT_PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#define F(name) printf("%zu ", offsetof(struct stat, name))
int main(void) {{ {fields} printf("%zu\\n", sizeof(struct stat)); }}
"""
C_NAMES = {
    f"{kind}{part}": f"st_{kind[0]}tim.tv_{'nsec' if part else 'sec'}"
    for kind in ("atime", "mtime", "ctime")
    for part in ("", "_nsec")
}

# Constants that are passed through, or interpreted, by one value for both ISAs.
CONSTANTS = (Path(__file__).parent / "constants.txt").read_text().split()
CONSTANTS_PROGRAM = """
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <termios.h>
int main(void) {{ {lines} }}
"""


def _offset(structure, fields, index):
    """Where field `index` of a `struct` format is: the first byte that it sets."""
    formats = re.findall(r"[A-Za-wyzQ]", structure.format.lstrip("<"))
    unsigned = struct.Struct(re.sub(r"(?<!\d)([qi])", lambda match: match[1].upper(), structure.format))
    values = [0] * len(fields)
    values[index] = (1 << (8 * struct.calcsize(formats[index]))) - 1
    return next(place for place, byte in enumerate(unsigned.pack(*values)) if byte)


@pytest.mark.parametrize("side", ["host", "guest"])
def test_status_layout(side, tmp_path, emulate, compile_riscv64, compile_host):
    layout = abi.HOST_STAT if side == "host" else abi.GENERIC_STAT
    names = [C_NAMES.get(name, f"st_{name}") for name in layout.fields]
    source = STAT_PROGRAM.format(fields=" ".join(f"F({name});" for name in names))
    if side == "host":
        done = run((compile_host(source),), directory=tmp_path)
    else:
        done = emulate(compile_riscv64(source), directory=tmp_path)
    *offsets, size = map(int, done.output.split())
    assert size == layout.structure.size
    assert [_offset(layout.structure, layout.fields, index) for index in range(len(names))] == offsets


def test_constants_and_structures_are_the_same_on_both_sides(
    tmp_path, emulate, compile_riscv64, compile_host
):
    expressions = [word.replace("struct_", "struct ") for word in CONSTANTS]
    lines = "".join(f'printf("%lx\\n", (unsigned long)({expression}));' for expression in expressions)
    source = CONSTANTS_PROGRAM.format(lines=lines)
    native = run((compile_host(source),), directory=tmp_path).output.split()
    foreign = emulate(compile_riscv64(source), directory=tmp_path).output.split()
    assert len(native) == len(CONSTANTS)
    assert dict(zip(CONSTANTS, foreign, strict=True)) == dict(zip(CONSTANTS, native, strict=True))


def test_signal_frame_layout(tmp_path, emulate, compile_riscv64):
    program = compile_riscv64(
        r"""
        #define _GNU_SOURCE
        #include <signal.h>
        #include <stddef.h>
        #include <stdio.h>
        #include <sys/epoll.h>
        #include <ucontext.h>
        int main(void) {
            printf("%zu %zu %zu %zu %zu %zu\n",
                   offsetof(ucontext_t, uc_stack), offsetof(ucontext_t, uc_sigmask),
                   offsetof(ucontext_t, uc_mcontext), offsetof(ucontext_t, uc_mcontext.__fpregs),
                   sizeof(ucontext_t), offsetof(struct epoll_event, data));
        }
        """
    )
    stack, mask, machine, floats, size, data = map(int, emulate(program, directory=tmp_path).output.split())
    head = frames._CONTEXT_HEAD
    assert head.pack(0, 0, b"\xff" * 24, 0).index(b"\xff") == stack
    assert head.pack(0, 0, bytes(24), 0xFF).index(b"\xff") == mask
    assert head.size == machine
    assert head.size + frames._INTEGERS.size == floats
    assert size == frames.CONTEXT_SIZE
    assert abi.RISCV64.epoll_event.pack(0, 0xFF).index(b"\xff") == data
    assert frames.FRAME_SIZE % 16 == 0


def test_hardware_capabilities_are_those_of_rv64gc():
    assert abi.RISCV64.hwcap == 0x112D


def test_auxiliary_types_are_the_headers(tmp_path, emulate, compile_riscv64):
    lines = "".join(f'printf("%d ", AT_{entry.name});' for entry in Auxiliary)
    source = f"#include <elf.h>\n#include <stdio.h>\nint main(void) {{ {lines} }}"
    output = emulate(compile_riscv64(source), directory=tmp_path).output
    assert [int(word) for word in output.split()] == [int(entry) for entry in Auxiliary]


def test_signal_information_layout():
    info = signal_types.make_info(11, 2, 0x1234)
    assert len(info) == signal_types.INFO_SIZE
    assert struct.unpack_from("<iii4xQ", info) == (11, 0, 2, 0x1234)
