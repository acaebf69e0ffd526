"""`anyvirt run` as a shell user meets it: statuses, streams, signals and mistakes."""

import json
import os
import signal
import subprocess
import time

import pytest


@pytest.fixture
def cli(anyvirt_command):
    """Runs the command line and returns its completed process; nothing it does may print a traceback."""

    def cli(*words, **options):
        options = {"capture_output": True, "timeout": 60, **options}
        completed = subprocess.run((*anyvirt_command, *words), **options)
        assert b"Traceback" not in (completed.stderr or b"")
        return completed

    return cli


def native(*command):
    return ("run", "--on", "native", "--", *command)


@pytest.mark.parametrize("status", [0, 1, 2, 77, 255])
def test_the_exit_status_is_the_command_s(cli, status):
    assert cli(*native("sh", "-c", f"exit {status}")).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_death_by_signal_is_128_and_its_number(cli, number):
    assert cli(*native("sh", "-c", f"kill -{int(number)} $$")).returncode == 128 + number


def test_streams_pass_through_in_both_directions(cli):
    data = os.urandom(200_000)
    completed = cli(*native("sh", "-c", "tee /dev/stderr"), input=data)
    assert completed.stdout == completed.stderr == data


def test_options_after_the_command_are_the_command_s(cli):
    assert cli("run", "--on", "native", "echo", "--json", "-v").stdout == b"--json -v\n"


def test_env_sets_passes_and_leaves_out(cli):
    completed = cli(
        "run",
        "--on",
        "native",
        "--env",
        "A=1=2",
        "--env",
        "ABSENT",
        "--env",
        "EMPTY=",
        "--",
        "sh",
        "-c",
        "echo $A ${EMPTY-unset} ${ABSENT-unset}",
        env={**os.environ, "ABSENTEE": "x"},
    )
    assert completed.stdout == b"1=2 unset\n"


def test_json_holds_the_output_and_what_was_used(cli):
    completed = cli(
        "run", "--on", "native", "--json", "--", "sh", "-c", r"printf 'a\377'; echo e >&2; exit 3"
    )
    report = json.loads(completed.stdout)
    assert completed.returncode == report["exit_status"] == 3
    assert report["engine"] == "native"
    assert (report["stdout"], report["stdout_base64"], report["stderr"]) == ("a\ufffd", "Yf8=", "e\n")
    assert report["seconds"] > 0


def test_json_reports_errors_too(cli):
    completed = cli("run", "--on", "native", "--json", "--", "no-such-command")
    report = json.loads(completed.stdout)
    assert completed.returncode == report["exit_status"] == 127
    assert "no-such-command" in report["error"]


def test_verbose_says_which_engine_and_why(cli):
    completed = cli("run", "-v", "--on", "native", "--", "true")
    assert b"engine native: named by --on" in completed.stderr
    assert b"exit status 0 after" in completed.stderr


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("--on", "vmware", "--", "true"), 2, "the engines are native, container, user"),
        (("--on", "native"), 2, "Missing argument"),
        (("--on", "native", "--", ""), 2, "name is empty"),
        (("--on", "native", "--memory", "many", "--", "true"), 2, "not a size"),
        (("--on", "native", "--memory", "0", "--", "true"), 2, "out of range"),
        (("--on", "native", "--memory", "64K", "--", "true"), 2, "too small"),
        (("--on", "native", "--cpus", "-1", "--", "true"), 2, "CPU count"),
        (("--on", "native", "--pids", "0", "--", "true"), 2, "--pids"),
        (("--on", "native", "--timeout", "0", "--", "true"), 2, "--timeout"),
        (("--on", "native", "--mount", "/tmp", "--", "true"), 2, "SRC:DST"),
        (("--on", "native", "--mount", "/nowhere:/x", "--", "true"), 2, "does not exist"),
        (("--on", "native", "--env", "=x", "--", "true"), 2, "environment variable"),
        (("--on", "native", "--hostname", "a_b", "--", "true"), 2, "hostname"),
        (("--on", "native", "--workdir", "here", "--", "true"), 2, "absolute"),
        (("--on", "native", "--workdir", "/nowhere", "--", "/bin/true"), 2, "/nowhere"),
        (("--on", "native", "--rootfs", "/nowhere", "--", "true"), 2, "does not exist"),
        (
            ("--on", "native", "--rootfs", "/", "--", "true"),
            2,
            "container or user or translator or interpreter can",
        ),
        (("--on", "native", "--trace", "/nowhere/t", "--", "true"), 2, "user can"),
        (("--on", "native", "--coverage", "/nowhere/c", "--", "true"), 2, "user can"),
        (("--nonsense", "--", "true"), 2, "--nonsense"),
        (("--on", "native", "--", "no-such-command"), 127, "not found"),
        (("--on", "native", "--", "/no/such/file"), 127, "no such file"),
        (("--on", "native", "--", "/tmp"), 126, "directory"),
        (("--on", "native", "--", "/etc/passwd"), 126, "permission denied"),
        (("--on", "native", "--timeout", "0.2", "--", "sleep", "9"), 124, "after 0.2 seconds"),
    ],
)
def test_a_mistake_is_one_sentence_and_the_right_status(cli, words, status, sentence):
    completed = cli("run", *words)
    message = completed.stderr.decode()
    assert completed.returncode == status
    assert sentence in message
    assert message.startswith("anyvirt: ")
    assert message.count("\n") == 1
    assert completed.stdout == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_forwarded(anyvirt_command, number):
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen((*anyvirt_command, *native("sh", "-c", script)), stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.read() == f"got {name}\n".encode()
    assert process.returncode == 9


def test_an_ignored_signal_stays_ignored(anyvirt_command):
    """As under nohup(1)."""
    script = "echo ready; sleep 0.3; echo done"
    process = subprocess.Popen(
        ("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *anyvirt_command, *native("sh", "-c", script)),
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == b"done\n"
    assert process.returncode == 0


def test_a_closed_reader_ends_a_flood(anyvirt_command):
    process = subprocess.Popen((*anyvirt_command, *native("yes")), stdout=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(30) == 128 + signal.SIGPIPE


def test_the_guest_s_children_end_with_a_timeout(cli):
    began = time.monotonic()
    completed = cli("run", "--on", "native", "--timeout", "0.3", "--", "sh", "-c", "sleep 30 & wait")
    assert completed.returncode == 124
    assert time.monotonic() - began < 20


def test_version_and_help(cli):
    assert cli("--version").stdout.startswith(b"anyvirt ")
    help_text = cli("--help").stdout.decode()
    assert all(verb in help_text for verb in ("run", "compare", "engines"))
    assert "--rootfs DIR" in cli("run", "--help").stdout.decode()
    assert cli().returncode == 2
    assert cli("rnu").returncode == 2


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_closed_for_the_guest_too(anyvirt_command, closed):
    script = f'exec "$@" {closed}'
    words = (*anyvirt_command, *native("sh", "-c", "cat; echo out; echo err >&2; exit 5"))
    completed = subprocess.run(
        ("sh", "-c", script, "sh", *words), stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    assert completed.returncode == 5
    assert completed.stdout == (b"" if ">&-" in closed.replace("2>&-", "") else b"out\n")


def test_running_out_of_memory_is_said(cli):
    from anyvirt.engines import get

    if "memory" not in get("container").probe().details.get("limits", ""):
        pytest.skip("engine container cannot limit memory here")
    completed = cli(
        *("run", "--on", "container", "--memory", "32M", "--"),
        *("sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\0' x)"),
    )
    assert completed.returncode == 137
    assert b"memory limit of 32.0 MiB" in completed.stderr


def test_deterministic_runs_are_refused_where_they_cannot_be(cli):
    completed = cli("run", "--on", "native", "--deterministic", "--", "true")
    assert completed.returncode == 2
    assert completed.stderr == (
        b"anyvirt: engine native has no determinism: it cannot honour --deterministic; "
        b"translator or interpreter can\n"
    )
    completed = cli("run", "--seed", "3", "--", "true")
    assert completed.returncode == 2
    assert b"--seed is the entropy of a deterministic run" in completed.stderr
