"""Programs with threads: what they print and how they end, against the host's kernel and QEMU."""

import os
import signal
import subprocess
import time

import pytest

from anyvirt.cpu.tiers import TIER_VARIABLE, Tier

from .conftest import EMULATOR, PROGRAMS, Result, run

ENDS = {
    "exit": 42,
    "return": 17,
    "outlive": 0,
    "status": 9,
    "execute": 6,
    "execute-late": 6,
    "execute-first": 6,
    "fork": 0,
    "forks": 0,
    "overflow": -signal.SIGSEGV,
    "abort": -signal.SIGABRT,
    "terminate": -signal.SIGTERM,
    "robust": 0,
}


@pytest.mark.parametrize("name", ["threads", "thread_signals"])
def test_threads_do_what_they_do_under_qemu(name, tmp_path, emulate, compile_riscv64, qemu):
    program = compile_riscv64(PROGRAMS / f"{name}.c", "-pthread")
    expected = run((qemu, program), directory=tmp_path)
    assert expected.output.count("\n") >= 10
    assert emulate(program, directory=tmp_path) == expected


@pytest.mark.parametrize("name", ["futexes", "server"])
def test_threads_do_what_they_do_on_the_host_s_kernel(name, tmp_path, emulate, compile_riscv64, compile_host):
    path = PROGRAMS / f"{name}.c"
    expected = run((compile_host(path, "-pthread"),), directory=tmp_path)
    assert expected.status == 0
    assert emulate(compile_riscv64(path, "-pthread"), directory=tmp_path) == expected


@pytest.mark.parametrize("how", ENDS)
def test_a_process_with_threads_ends_as_on_the_host_s_kernel(
    how, tmp_path, emulate, compile_riscv64, compile_host
):
    path = PROGRAMS / "thread_ends.c"
    expected = run((compile_host(path, "-pthread"), how), directory=tmp_path)
    actual = emulate(compile_riscv64(path, "-pthread"), how, directory=tmp_path)
    # Until Linux 6.0 a process had the status of its first thread, not that of its last one.
    if how != "status":
        assert expected.status == ENDS[how]
        assert actual == expected
    assert actual.status == ENDS[how]


@pytest.mark.parametrize("tier", [Tier.INTERPRETER, Tier.STENCIL, Tier.REGION])
def test_each_tier_runs_threads(tier, tmp_path, emulate, compile_riscv64, qemu):
    program = compile_riscv64(PROGRAMS / "threads.c", "-pthread")
    expected = run((qemu, program), directory=tmp_path)
    assert emulate(program, directory=tmp_path, **{TIER_VARIABLE: tier}) == expected


def test_a_signal_from_outside_ends_a_process_with_threads(tmp_path, compile_riscv64):
    program = compile_riscv64(
        r"""
        #include <pthread.h>
        #include <unistd.h>
        static void *spin(void *argument) { for (;;) continue; }
        int main(void) {
            pthread_t thread;
            for (int i = 0; i < 3; i++) pthread_create(&thread, 0, spin, 0);
            write(1, "x", 1);
            pthread_exit(0);
        }
        """,
        "-pthread",
    )
    with subprocess.Popen((*EMULATOR, program), cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1) == b"x"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM


def test_strange_threads_are_refused(tmp_path, emulate, compile_riscv64):
    """What a thread shares with the others it cannot choose, and wrong addresses are errors of its own."""
    program = compile_riscv64(
        r"""
        #define _GNU_SOURCE
        #include <errno.h>
        #include <sched.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static long call(long flags, void *stack, void *tid) {
            long result = syscall(SYS_clone, flags, stack, tid, 0, tid);
            if (!result) syscall(SYS_exit, 0);
            return result < 0 ? -errno : result > 0;
        }
        int main(void) {
            static char stack[4][4096];
            long all = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
            printf("%ld ", call(CLONE_THREAD, stack[1], 0));
            printf("%ld ", call(CLONE_THREAD | CLONE_VM, stack[1], 0));
            printf("%ld ", call(all | CLONE_NEWUSER, stack[1], 0));
            printf("%ld ", call(all & ~CLONE_FILES, stack[1], 0));
            long tids = CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID;
            printf("%ld ", call(all | tids, stack[2], (void *)-8));
            printf("%ld ", call(all | tids, stack[3], (void *)8));
            printf("%ld ", syscall(SYS_set_robust_list, (void *)-8, 24));
            printf("%ld\n", syscall(SYS_set_robust_list, 0, 23));
        }
        """
    )
    assert emulate(program, directory=tmp_path) == Result(0, "-22 -22 -22 -22 1 1 0 -1\n", "")


def test_a_strange_robust_list_ends_nobody_but_its_owner(tmp_path, emulate, compile_riscv64):
    program = compile_riscv64(
        r"""
        #include <pthread.h>
        #include <stdio.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static struct { void *next; long distance; void *making; } list;
        static void *end(void *argument) {
            list.next = argument;
            list.distance = (long)argument;
            list.making = argument;
            syscall(SYS_set_robust_list, &list, sizeof list);
            return 0;
        }
        int main(void) {
            char *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            void *places[] = {&list, (void *)8, (void *)-8, page, page + 1, (void *)(1L << 62), 0};
            for (int i = 0; i < 7; i++) {
                pthread_t thread;
                pthread_create(&thread, 0, end, places[i]);
                pthread_join(thread, 0);
            }
            list.next = list.making = (void *)-8;
            syscall(SYS_set_robust_list, &list, sizeof list);
            puts("done");
        }
        """,
        "-pthread",
    )
    assert emulate(program, directory=tmp_path) == Result(0, "done\n", "")


def test_memory_of_the_emulator_cannot_be_opened_by_a_thread_s_number(tmp_path, emulate, compile_riscv64):
    program = compile_riscv64(
        r"""
        #include <errno.h>
        #include <fcntl.h>
        #include <pthread.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static void *look(void *argument) {
            const char *formats[] = {"/proc/%d/mem", "/proc/self/task/%d/mem", "/proc/%d/../%d/mem"};
            for (int i = 0; i < 3; i++) {
                char path[64];
                int number = syscall(SYS_gettid);
                sprintf(path, formats[i], number, number);
                int fd = open(path, O_RDWR);
                printf("%d ", fd < 0 && errno == EACCES);
            }
            printf("%d\n", open("/proc/thread-self/mem", O_RDWR) < 0);
            return 0;
        }
        int main(void) {
            pthread_t thread;
            pthread_create(&thread, 0, look, 0);
            pthread_join(thread, 0);
        }
        """,
        "-pthread",
    )
    assert emulate(program, directory=tmp_path).output == "1 1 1 1\n"


@pytest.mark.parametrize("recorder", ["ANYVIRT_TRACE", "ANYVIRT_COVERAGE"])
def test_recorded_processes_are_told_that_they_get_no_threads(recorder, tmp_path, emulate, compile_riscv64):
    program = compile_riscv64(
        r"""
        #include <pthread.h>
        #include <stdio.h>
        #include <string.h>
        static void *nothing(void *argument) { return 0; }
        int main(void) {
            pthread_t thread;
            puts(strerror(pthread_create(&thread, 0, nothing, 0)));
        }
        """,
        "-pthread",
    )
    actual = emulate(program, directory=tmp_path, **{recorder: str(tmp_path / "record.txt")})
    assert actual.output == "Resource temporarily unavailable\n"
    assert "cannot begin threads" in actual.errors


def test_strace_shows_the_numbers_of_threads(tmp_path, emulate, compile_riscv64):
    program = compile_riscv64(
        r"""
        #include <pthread.h>
        #include <unistd.h>
        static void *call(void *argument) { getppid(); return 0; }
        int main(void) {
            pthread_t thread;
            pthread_create(&thread, 0, call, 0);
            pthread_join(thread, 0);
            getppid();
        }
        """,
        "-pthread",
    )
    lines = emulate(program, directory=tmp_path, ANYVIRT_STRACE="1").errors.splitlines()
    other, first = (line.split()[0] for line in lines if "getppid" in line)
    assert other != first
    assert any("clone(" in line and line.endswith(f"= {other}") for line in lines)


def test_all_threads_take_another_identity(tmp_path, emulate, compile_riscv64, compile_host):
    """The C library sends each thread a signal of its own number for that (setxid)."""
    program = r"""
        #define _GNU_SOURCE
        #include <pthread.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static _Atomic int begun, changed;
        static void *look(void *argument) {
            begun++;
            while (!changed) argument ? (void)usleep(1000) : (void)0;
            return (void *)(long)syscall(SYS_getegid);
        }
        int main(void) {
            pthread_t threads[2];
            void *result;
            for (long i = 0; i < 2; i++) pthread_create(&threads[i], 0, look, (void *)i);
            while (begun < 2) usleep(1000);
            printf("%d ", setregid(-1, getgid()));
            printf("%d\n", getuid() ? 0 : setegid(4711));
            changed = 1;
            for (int i = 0; i < 2; i++) {
                pthread_join(threads[i], &result);
                printf("%d\n", (int)(long)result);
            }
        }
    """
    expected = run((compile_host(program, "-pthread"),), directory=tmp_path)
    assert expected.output.startswith("0 0\n")
    assert emulate(compile_riscv64(program, "-pthread"), directory=tmp_path) == expected


def test_threads_that_start_programs_do_not_wait_for_each_other_s_children(
    tmp_path, emulate, compile_riscv64
):
    """One forks children that stay; others start programs meanwhile, and one becomes one of the host's."""
    program = compile_riscv64(
        r"""
        #include <pthread.h>
        #include <signal.h>
        #include <spawn.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static _Atomic int done, failures;
        static void *fork_all_the_time(void *argument) {
            pid_t children[30];
            int count = 0;
            while (!done && count < 30) {
                if (!(children[count++] = fork())) { for (;;) pause(); }
                usleep(5000);
            }
            while (count) {
                kill(children[--count], SIGKILL);
                waitpid(children[count], 0, 0);
            }
            return 0;
        }
        static void *start(void *argument) {
            char *words[] = {"true", 0};
            for (int i = 0; i < 5; i++) {
                pid_t child;
                int status = 1;
                if (posix_spawn(&child, "/bin/true", 0, 0, words, words + 1)) failures++;
                if (waitpid(child, &status, 0) != child || status) failures++;
            }
            return 0;
        }
        static void *become(void *argument) {
            execl("/bin/echo", "echo", "the host's", (char *)0);
            return 0;
        }
        int main(void) {
            pthread_t forker, starters[2];
            pthread_create(&forker, 0, fork_all_the_time, 0);
            for (int i = 0; i < 2; i++) pthread_create(&starters[i], 0, start, 0);
            for (int i = 0; i < 2; i++) pthread_join(starters[i], 0);
            done = 1;
            pthread_join(forker, 0);
            printf("failures %d\n", failures);
            fflush(stdout);
            pthread_create(&forker, 0, become, 0);
            for (;;) pause();
        }
        """,
        "-pthread",
    )
    assert emulate(program, directory=tmp_path) == Result(0, "failures 0\nthe host's\n", "")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_threads_without_end_are_ended_by_the_guest_s_own_error(tmp_path, emulate, compile_riscv64):
    program = compile_riscv64(PROGRAMS / "thread_ends.c", "-pthread")
    actual = emulate(program, "many", directory=tmp_path, timeout=800)
    assert actual == Result(0, "many: 1, EAGAIN\n", "")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["execute", "forks", "exit"])
def test_ends_in_a_crowd_are_never_missed(how, tmp_path, emulate, compile_riscv64):
    """Again and again: what is to be interrupted is at another place each time."""
    program = compile_riscv64(PROGRAMS / "thread_ends.c", "-pthread")
    deadline = time.monotonic() + 60
    for _ in range(60):
        actual = emulate(program, how, directory=tmp_path)
        assert (actual.status, actual.errors) == (ENDS[how], "")
        if time.monotonic() > deadline:
            break
    assert os.listdir(tmp_path) == []
