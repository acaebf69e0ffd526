"""Whole C programs: what they print and how they end, against the host's kernel and QEMU."""

import signal

import pytest

from .conftest import PROGRAMS, run

AGAINST_THE_HOST = ("files", "directories", "memory", "processes", "children", "closing")
AGAINST_QEMU = ("floats", "sockets", "identity", "terminals", "events", "signals", "clocks")


def _directories(tmp_path):
    for name in ("expected", "actual"):
        (tmp_path / name).mkdir()
    return tmp_path / "expected", tmp_path / "actual"


@pytest.mark.parametrize("name", AGAINST_THE_HOST)
def test_program_does_what_it_does_on_the_host_s_kernel(
    name, tmp_path, emulate, compile_riscv64, compile_host
):
    native, foreign = compile_host(PROGRAMS / f"{name}.c"), compile_riscv64(PROGRAMS / f"{name}.c")
    there, here = _directories(tmp_path)
    expected = run((native,), directory=there)
    actual = emulate(foreign, directory=here)
    assert expected.status == 0
    assert expected.output.count("\n") >= 10
    # The programs print their own path when they execute themselves.
    assert actual.output.replace(str(foreign), str(native)) == expected.output
    assert (actual.status, actual.errors) == (expected.status, expected.errors)


@pytest.mark.parametrize("name", AGAINST_QEMU)
def test_program_does_what_it_does_under_qemu(name, tmp_path, emulate, compile_riscv64, qemu):
    program = compile_riscv64(PROGRAMS / f"{name}.c")
    there, here = _directories(tmp_path)
    expected = run((qemu, program, "word"), directory=there, CHOSEN="value")
    actual = emulate(program, "word", directory=here, CHOSEN="value")
    assert expected.status == 0
    assert expected.output.count("\n") >= 10
    assert actual == expected


def test_a_deadly_signal_is_the_true_end_of_the_process(tmp_path, emulate, compile_riscv64, qemu):
    program = compile_riscv64(PROGRAMS / "deaths.c")
    there, here = _directories(tmp_path)
    expected = run((qemu, program), directory=there)
    actual = emulate(program, directory=here)
    assert actual.status == -signal.SIGSEGV
    assert actual.output == expected.output
    assert actual.output.count("signal") == 18


def test_a_hostile_program_gets_its_own_errors(tmp_path, emulate, compile_riscv64):
    actual = emulate(compile_riscv64(PROGRAMS / "hostile.c"), directory=tmp_path)
    assert actual == type(actual)(0, "done\n", "")


def test_random_system_calls_end_in_errors_or_signals_of_the_guest(tmp_path, emulate, compile_riscv64):
    """A failure of the emulator would be a traceback on standard error and an exit status."""
    tmp_path.chmod(0o777)
    program = compile_riscv64(PROGRAMS / "random_calls.c")
    actual = emulate(program, "0", "150", directory=tmp_path, timeout=110)
    assert actual == type(actual)(0, "failed 0, all 150\n", "")


def test_signals_are_never_lost_in_the_gap_before_a_blocking_call(tmp_path, emulate, compile_riscv64):
    """A child answers each signal by a signal; one that is slept through would hang the exchange."""
    program = compile_riscv64(
        r"""
        #include <signal.h>
        #include <stdio.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static volatile int hits;
        static void hit(int number) { hits++; }
        int main(void) {
            sigset_t block, none;
            sigemptyset(&none);
            sigemptyset(&block);
            sigaddset(&block, SIGUSR1);
            struct sigaction action = {.sa_handler = hit};
            sigaction(SIGUSR1, &action, 0);
            sigprocmask(SIG_BLOCK, &block, 0);
            pid_t other = getpid(), child = fork();
            if (child) other = child;
            for (int i = 0; i < 300; i++) {
                if (child || i) kill(other, SIGUSR1);
                while (hits <= i) sigsuspend(&none);
            }
            if (!child) { kill(other, SIGUSR1); _exit(hits != 300); }
            int status;
            waitpid(child, &status, 0);
            printf("%d %d\n", hits, status);
        }
        """
    )
    assert emulate(program, directory=tmp_path).output == "300 0\n"


def test_restartable_reads_survive_a_storm_of_signals(tmp_path, emulate, compile_riscv64):
    program = compile_riscv64(
        r"""
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/time.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static volatile int hits;
        static void hit(int number) { hits++; }
        int main(void) {
            struct sigaction action = {.sa_handler = hit, .sa_flags = SA_RESTART};
            sigaction(SIGALRM, &action, 0);
            int ends[2];
            pipe(ends);
            if (fork() == 0) {
                for (int i = 0; i < 300; i++) { usleep(1000); if (write(ends[1], &i, 4) != 4) _exit(1); }
                _exit(0);
            }
            close(ends[1]);
            struct itimerval often = {{0, 500}, {0, 500}};
            setitimer(ITIMER_REAL, &often, 0);
            int value, expected = 0, wrong = 0;
            long got;
            while ((got = read(ends[0], &value, 4)) != 0) wrong += got != 4 || value != expected++;
            printf("%d %d %d\n", expected, wrong, hits > 50);
        }
        """
    )
    assert emulate(program, directory=tmp_path).output == "300 0 1\n"
