"""The emulator as a program: how it starts, refuses, traces, and what the guest inherits."""

import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import EMULATOR, run

HELLO = '#include <stdio.h>\nint main(int c, char **v) { printf("hello %d %s\\n", c, v[c - 1]); return 3; }'


@pytest.fixture(scope="session")
def hello(compile_riscv64):
    return compile_riscv64(HELLO)


def test_a_program_runs_with_its_arguments_and_exit_status(hello, emulate, tmp_path):
    result = emulate(hello, "a b", "", "ü", directory=tmp_path)
    assert (result.status, result.output, result.errors) == (3, "hello 4 ü\n", "")


def test_a_program_is_found_through_path(hello, emulate, tmp_path):
    (tmp_path / "greet").symlink_to(hello)
    result = emulate("greet", directory=tmp_path, PATH=f"/nowhere:{tmp_path}")
    assert (result.status, result.output) == (3, "hello 1 greet\n")


def test_a_program_without_compressed_instructions_runs(compile_riscv64, emulate, tmp_path):
    assert emulate(compile_riscv64(HELLO, "-march=rv64g"), "x", directory=tmp_path).output == "hello 2 x\n"


def test_a_position_independent_program_runs_high_in_memory(compile_riscv64, emulate, tmp_path):
    program = compile_riscv64(
        r"""
        static long call(long number, long a, long b, long c) {
            register long a7 __asm__("a7") = number, a0 __asm__("a0") = a;
            register long a1 __asm__("a1") = b, a2 __asm__("a2") = c;
            __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2) : "memory");
            return a0;
        }
        void _start(void) {
            call(64, 1, (long)"independent\n", 12);
            call(93, (unsigned long)_start > 0x2000000000 ? 7 : 1, 0, 0);
        }
        """,
        "-nostdlib", "-fpie", "-Wl,-pie,--no-dynamic-linker",
    )  # fmt: skip
    result = emulate(program, directory=tmp_path)
    assert (result.status, result.output) == (7, "independent\n")


def _write(path, content, mode=0o755):
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("make", "status", "sentence"),
    [
        (lambda path, program: path / "missing", 127, "no such file"),
        (lambda path, program: path, 126, "is a directory"),
        (lambda path, program: _write(path / "x", program, 0o644), 126, "permission denied"),
        (lambda path, program: _write(path / "x", program[:3000]), 126, "truncated"),
        (lambda path, program: _write(path / "x", program[:40]), 126, "truncated"),
        (lambda path, program: _write(path / "x", b""), 126, "empty file"),
        (lambda path, program: _write(path / "x", b"just text"), 126, "not an ELF file"),
        (lambda path, program: _write(path / "x", program[:24] + bytes(40) + program[64:]), 126, "damaged"),
        (lambda path, program: _write(path / "x", b"#!/no/such/interpreter\n"), 127, "interpreter"),
        (lambda path, program: _write(path / "x", b"#!\n"), 126, "first line names no interpreter"),
        (lambda path, program: "/bin/true", 126, "not a riscv64 program"),
        (lambda path, program: "no-such-command", 127, "not found"),
    ],
    ids=[
        "missing", "directory", "not executable", "truncated", "header cut", "empty", "text", "damaged",
        "lost interpreter", "no interpreter", "host program", "unknown command",
    ],
)  # fmt: skip
def test_what_cannot_run_ends_in_one_sentence_and_the_shell_s_status(
    make, status, sentence, hello, emulate, tmp_path
):
    result = emulate(make(tmp_path, hello.read_bytes()), directory=tmp_path)
    assert result.status == status
    assert result.output == ""
    assert result.errors.startswith("anyvirt: ")
    assert result.errors.count("\n") == 1
    assert sentence in result.errors


def test_without_a_program_the_emulator_tells_its_usage(tmp_path):
    result = run(EMULATOR, directory=tmp_path)
    assert (result.status, result.errors.count("\n")) == (2, 1)


def test_a_limit_on_virtual_memory_is_one_sentence(hello, tmp_path):
    command = f"ulimit -v 4000000; exec {' '.join(map(str, EMULATOR))} {hello}"
    result = run(("sh", "-c", command), directory=tmp_path)
    assert result.status != 0
    assert result.errors.startswith("anyvirt: ")
    assert result.errors.count("\n") == 1


def test_system_calls_are_shown_when_asked_for(hello, emulate, tmp_path):
    result = emulate(hello, "x", directory=tmp_path, ANYVIRT_STRACE="1")
    assert result.output == "hello 2 x\n"
    lines = result.errors.splitlines()
    assert any(re.fullmatch(r'\d+ write\(1, "hello 2 x\\n", 10\) = 10', line) for line in lines)
    assert re.fullmatch(r"\d+ exit_group\(3\) = \?", lines[-1])
    assert all(re.fullmatch(r"\d+ \w+\(.*\) = .+", line) for line in lines)


def test_traces_show_errors_names_and_what_is_not_served(compile_riscv64, emulate, tmp_path):
    program = compile_riscv64(
        r"""
        #include <fcntl.h>
        #include <signal.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(void) {
            openat(AT_FDCWD, "missing\n", O_RDONLY);
            mkdirat(7, "x", 0711);
            write(1, (void *)8, 1);
            kill(getpid(), 0);
            kill(1 << 30, SIGTERM);
            syscall(SYS_bpf, 1, 2, 3);
            syscall(4000);
        }
        """
    )
    text = emulate(program, directory=tmp_path, ANYVIRT_STRACE="1").errors
    for line in (
        r'openat(AT_FDCWD, "missing\n", 0x0, 00) = -1 ENOENT (No such file or directory)',
        'mkdirat(7, "x", 0711) = -1 EBADF (Bad file descriptor)',
        "write(1, 0x8, 1) = -1 EFAULT (Bad address)",
        "kill(1073741824, SIGTERM) = -1 ESRCH (No such process)",
        "bpf(1, 2, 3,",
        "syscall_4000(",
        "ENOSYS (Function not implemented)",
    ):
        assert line in text


def test_the_guest_inherits_ignored_signals_mask_and_directory(compile_riscv64, tmp_path):
    program = compile_riscv64(
        r"""
        #include <signal.h>
        #include <stdio.h>
        #include <unistd.h>
        int main(void) {
            struct sigaction action;
            sigset_t mask;
            int numbers[] = {SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGXFSZ};
            for (int i = 0; i < 5; i++) {
                sigaction(numbers[i], 0, &action);
                printf("%d", action.sa_handler == SIG_IGN ? 1 : action.sa_handler == SIG_DFL ? 0 : 2);
            }
            sigprocmask(SIG_BLOCK, 0, &mask);
            printf(" %d%d ", sigismember(&mask, SIGUSR1), sigismember(&mask, SIGUSR2));
            char path[4096];
            puts(getcwd(path, sizeof path));
        }
        """
    )

    def prepare():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2})

    output = subprocess.run(
        [*EMULATOR, program], cwd=tmp_path, preexec_fn=prepare, capture_output=True, text=True
    ).stdout
    assert output == f"10000 01 {tmp_path}\n"


def test_the_emulator_holds_no_descriptor(compile_riscv64, emulate, tmp_path):
    program = compile_riscv64(
        r"""
        #include <dirent.h>
        #include <stdio.h>
        int main(void) {
            struct dirent **names;
            int count = scandir("/proc/self/fd", &names, 0, alphasort);
            for (int i = 2; i < count; i++) printf("%s ", names[i]->d_name);
        }
        """
    )
    assert emulate(program, directory=tmp_path).output == "0 1 2 3 "


HEAVY = {"llvmlite", "numpy", "click", "rich", "asyncio", "matplotlib", "subprocess", "socket"}


def test_starting_imports_nothing_heavy(hello, tmp_path):
    """Some start of many: on a busy host a guest may live until the compiler's client looks at it."""
    command = (*EMULATOR[:1], "-X", "importtime", *EMULATOR[1:], hello)
    assert run((*EMULATOR, hello), directory=tmp_path).status == 3
    imported = []
    for _ in range(20):
        text = run(command, directory=tmp_path).errors
        modules = {line.rpartition("|")[2].strip() for line in text.splitlines()}
        assert "anyvirt.linux.emulation.run" in modules
        imported.append(modules & HEAVY)
        if not imported[-1]:
            break
    assert not imported[-1], imported


def test_the_first_start_compiles_apart_from_the_guest(hello, compile_riscv64, tmp_path):
    """The guest of the process that had to compile is as small as any other: it has not loaded LLVM."""
    program = compile_riscv64(
        r"""
        #include <stdio.h>
        int main(void) {
            char line[200];
            FILE *file = fopen("/proc/self/smaps_rollup", "r");
            while (fgets(line, sizeof line, file)) if (sscanf(line, "Rss: %s", line)) puts(line);
        }
        """
    )
    sizes = [
        int(run((*EMULATOR, program), directory=tmp_path, ANYVIRT_STATE=str(tmp_path / "state")).output)
        for _ in range(2)
    ]
    assert list((tmp_path / "state/cache/code").glob("*.blob"))
    assert sizes[0] < sizes[1] + 8192


def test_without_a_compiler_and_a_cache_the_way_out_is_told(hello, tmp_path):
    """A Python whose site packages lack llvmlite: the base interpreter of the virtual environment."""
    base = Path(sys._base_executable)
    check = subprocess.run([base, "-I", "-c", "import llvmlite"], capture_output=True)
    if not base.exists() or check.returncode == 0:
        pytest.skip("the base Python has llvmlite too")
    command = (base, *EMULATOR[1:], hello)
    result = run(command, directory=tmp_path, ANYVIRT_STATE=str(tmp_path / "state"))
    assert result.status == 2
    assert "pip install llvmlite" in result.errors
    assert result.errors.count("\n") == 1


def test_core_limits_and_memory_limits_of_the_host_are_the_guest_s(compile_riscv64, emulate, tmp_path):
    program = compile_riscv64(
        r"""
        #include <stdio.h>
        #include <sys/resource.h>
        int main(void) {
            struct rlimit l;
            getrlimit(RLIMIT_STACK, &l);
            printf("%ld ", (long)l.rlim_cur);
            getrlimit(RLIMIT_NOFILE, &l);
            printf("%ld\n", (long)l.rlim_cur);
        }
        """
    )
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert emulate(program, directory=tmp_path).output == f"{stack} {files}\n"


def test_it_needs_no_privileges(hello, tmp_path):
    """In a user namespace without mappings, which takes every capability and the user's number away."""
    if subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode != 0:
        pytest.skip("needs unshare (package util-linux) and user namespaces")
    command = ("unshare", "--user", *EMULATOR, hello)
    result = run(command, directory=tmp_path, ANYVIRT_STATE=str(tmp_path / "state"))
    assert (result.status, result.output, result.errors) == (3, f"hello 1 {hello}\n", "")
