"""The agent's program on the host, for the host's CPU and for RISC-V: what it does, and what it survives."""

import os
import shutil
import signal
import struct
import sys
import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from anyvirt.agent.client import AgentError
from anyvirt.agent.protocol import (
    COMMAND_LIMIT,
    HEADER,
    WINDOW,
    Address,
    Gateway,
    InterfaceUp,
    Kind,
    Link,
    LoadModule,
    MakeDirectory,
    Mount,
    Run,
    RunFlag,
    WriteFile,
    frame,
)
from anyvirt.errors import CommandNotFoundError, NotExecutableError
from anyvirt.instance import ExitStatus
from anyvirt.isa.names import Isa

ISAS = [Isa.X86_64, Isa.RISCV64]
TIMEOUT = 30
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C"}


def shell(script, **options):
    return Run(("sh", "-c", script), ENVIRONMENT, uid=os.getuid(), gid=os.getgid(), **options)


@pytest.fixture(params=ISAS)
def client(request, start_agent):
    if os.getuid() != 0:
        pytest.skip("the agent sets groups and users, which only root may")
    client = start_agent(request.param).client
    client.connect(TIMEOUT)
    return client


def finish(command):
    """Output, errors and the exit status of a command whose output fits its windows."""
    status = command.wait(TIMEOUT)
    return command.stdout.read_all(), command.stderr.read_all(), status


def test_it_says_who_it_is_and_how_its_plan_went(start_agent, tmp_path):
    client = start_agent(Isa.X86_64, MakeDirectory(f"{tmp_path}/a/b/c", 0o700)).client
    welcome = client.connect(TIMEOUT)
    assert (welcome.version, welcome.plan_steps, welcome.plan_error) == (1, 2, 0)
    assert (welcome.release, welcome.machine) == (os.uname().release, os.uname().machine)
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o700


def test_a_plan_that_fails_is_told_to_whoever_connects(start_agent, tmp_path):
    agent = start_agent(Isa.X86_64, LoadModule(f"{tmp_path}/missing.ko"), MakeDirectory(f"{tmp_path}/later"))
    with pytest.raises(AgentError, match="step 2, load module, failed: No such file or directory"):
        agent.client.connect(TIMEOUT)
    assert not (tmp_path / "later").exists()
    agent.client.close()
    assert agent.process.stderr.read() == b"anyvirt: step 2 of the plan failed with error 2\n"


@pytest.mark.parametrize("isa", ISAS)
def test_interfaces_carry_packets_when_they_are_up(start_agent, isa):
    if os.getuid() != 0:
        pytest.skip("a namespace of networks needs root")
    client = start_agent(isa, prefix=["unshare", "--net"]).client
    client.connect(TIMEOUT)
    script = (
        "import socket; server = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(server.getsockname(), timeout=5)"
    )
    connect = Run((sys.executable, "-c", script), ENVIRONMENT)
    assert finish(client.run(connect))[2] == ExitStatus(code=1)
    client.request(InterfaceUp("lo"), TIMEOUT)
    assert finish(client.run(connect))[2] == ExitStatus(code=0)
    with pytest.raises(AgentError, match="interface up: No such device"):
        client.request(InterfaceUp("lo7"), TIMEOUT)
    with pytest.raises(AgentError, match="interface up: File name too long"):
        client.request(InterfaceUp("x" * 16), TIMEOUT)


@pytest.mark.parametrize("isa", ISAS)
def test_an_interface_gets_an_address_and_the_way_to_others(start_agent, isa):
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root, and ip (package iproute2)")
    client = start_agent(isa, prefix=["unshare", "--net"]).client
    client.connect(TIMEOUT)
    finish(client.run(shell("ip tuntap add t0 mode tap")))
    client.request(InterfaceUp("t0"), TIMEOUT)
    client.request(Address("t0", IPv4Interface("10.7.0.9/22")), TIMEOUT)
    client.request(Gateway("t0", IPv4Address("10.7.3.254")), TIMEOUT)
    shown = finish(client.run(shell("ip -4 -o address show t0; ip route")))[0].decode()
    assert "inet 10.7.0.9/22 brd 10.7.3.255 scope global t0" in " ".join(shown.split())
    assert "default via 10.7.3.254 dev t0" in shown
    assert "10.7.0.0/22 dev t0" in shown
    with pytest.raises(AgentError, match="address: No such device"):
        client.request(Address("t1", IPv4Interface("10.7.0.9/22")), TIMEOUT)
    with pytest.raises(AgentError, match="address: File name too long"):
        client.request(Address("x" * 16, IPv4Interface("10.7.0.9/22")), TIMEOUT)
    with pytest.raises(AgentError, match="gateway: Network is unreachable"):
        client.request(Gateway("t0", IPv4Address("192.0.2.1")), TIMEOUT)


def test_files_are_written_in_place_of_what_was_there(client, tmp_path):
    (tmp_path / "other").write_text("kept")
    (tmp_path / "link").symlink_to("other")
    client.request(WriteFile(f"{tmp_path}/link", "nameserver 10.0.2.3\n"), TIMEOUT)
    client.request(WriteFile(f"{tmp_path}/new", "", 0o600), TIMEOUT)
    assert (tmp_path / "link").read_text() == "nameserver 10.0.2.3\n"
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "other").read_text() == "kept"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    with pytest.raises(AgentError, match="write file: No such file or directory"):
        client.request(WriteFile(f"{tmp_path}/no/such", "x"), TIMEOUT)


def test_output_errors_and_status(client):
    command = client.run(shell("echo out; echo err >&2; exit 7"))
    assert finish(command) == (b"out\n", b"err\n", ExitStatus(code=7))
    assert command.usage().peak_memory > 0


def test_a_death_by_signal_is_reported_as_one(client):
    assert finish(client.run(shell("kill -SEGV $$")))[2] == ExitStatus(signal=signal.SIGSEGV)


def test_words_environment_directory_and_streams_are_the_command_s(client, tmp_path):
    script = 'printf "%s|" "$@" "$NAME" "$PWD"; readlink /proc/self/fd/0 | cut -c1-5; umask; ls /proc/self/fd'
    environment = {**ENVIRONMENT, "NAME": "wért"}
    words = ("sh", "-c", script, "sh", "", "two words", "*")
    out, err, _ = finish(client.run(Run(words, environment, directory=str(tmp_path))))
    first, *rest = out.decode().split("\n")
    assert first == f"|two words|*|wért|{tmp_path}|pipe:"
    assert rest[0] == "0022"
    assert len(rest[1:]) <= 6  # 0, 1, 2, the directory that ls reads, and the end of the text
    assert err == b""


def test_input_is_carried_to_its_end(client):
    command = client.run(Run(("cat",), ENVIRONMENT))
    command.write(b"some ")
    command.write(b"words")
    command.close_input()
    assert finish(command) == (b"some words", b"", ExitStatus(code=0))


def test_much_data_passes_both_ways_without_loss(client):
    """Far more than the windows and the pipes hold, while nobody reads for a while."""
    import threading

    content = os.urandom(1 << 20)
    command = client.run(Run(("cat",), ENVIRONMENT))

    def write():
        command.write(content, TIMEOUT)
        command.close_input()

    writer = threading.Thread(target=write)
    writer.start()
    received = command.stdout.read_all()
    writer.join(TIMEOUT)
    assert received == content
    assert command.wait(TIMEOUT) == ExitStatus(code=0)


def test_a_command_that_writes_more_than_is_read_does_not_hold_up_others(client):
    flood = client.run(Run(("yes",), ENVIRONMENT))
    assert finish(client.run(shell("echo through")))[0] == b"through\n"
    assert flood.stdout.read(3, TIMEOUT) == b"y\ny"
    flood.signal(signal.SIGTERM)
    while flood.stdout.read(timeout=TIMEOUT):
        pass
    assert flood.wait(TIMEOUT) == ExitStatus(signal=signal.SIGTERM)


def test_a_command_that_reads_nothing_does_not_hold_up_others(client):
    deaf = client.run(Run(("sleep", "1000"), ENVIRONMENT))
    deaf.write(b"x" * WINDOW)
    with pytest.raises(TimeoutError):
        deaf.write(b"x" * (WINDOW + 1), timeout=0.3)
    assert finish(client.run(shell("echo through")))[0] == b"through\n"
    deaf.signal(signal.SIGKILL)
    assert deaf.wait(TIMEOUT) == ExitStatus(signal=signal.SIGKILL)


def test_input_that_nobody_wants_any_more_is_dropped(client):
    command = client.run(shell("exec 0<&-; echo ready; sleep 1000"))
    assert command.stdout.read() == b"ready\n"
    command.write(b"x" * (WINDOW * 4), TIMEOUT)
    command.signal(signal.SIGKILL)
    command.wait(TIMEOUT)


def test_many_commands_at_a_time(client):
    commands = [client.run(Run(("cat",), ENVIRONMENT)) for _ in range(COMMAND_LIMIT)]
    with pytest.raises(AgentError, match="Resource temporarily unavailable"):
        client.run(Run(("cat",), ENVIRONMENT))
    for number, command in enumerate(commands):
        command.write(b"%d" % number)
        command.close_input()
    assert [finish(command)[0] for command in commands] == [b"%d" % number for number in range(COMMAND_LIMIT)]
    assert finish(client.run(shell("echo again")))[0] == b"again\n"


def test_output_written_before_the_end_arrives_and_a_background_process_does_not_matter(client):
    command = client.run(shell("head -c 60000 /dev/zero; sleep 1000 & echo $! >&2"))
    assert command.wait(TIMEOUT) == ExitStatus(code=0)
    assert len(command.stdout.read_all()) == 60000
    os.kill(int(command.stderr.read_all()), signal.SIGKILL)


def test_signals_reach_the_command_or_its_group(client):
    trap = "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done"
    command = client.run(shell(trap))
    assert command.stdout.read() == b"ready\n"
    command.signal(signal.SIGUSR1)
    assert finish(command)[::2] == (b"caught\n", ExitStatus(code=3))
    command = client.run(shell("sh -c 'echo ready; exec sleep 1000'; echo $?"))
    assert command.stdout.read() == b"ready\n"
    command.signal(signal.SIGTERM, group=True)
    assert command.wait(TIMEOUT) == ExitStatus(signal=signal.SIGTERM)


def test_a_terminal_has_its_size_and_its_signals(client):
    command = client.run(shell("stty size; tty; exec cat", flags=RunFlag.TERMINAL, rows=11, columns=22))
    seen = b""
    while seen.count(b"\n") < 2:
        seen += command.stdout.read(timeout=TIMEOUT)
    assert seen.startswith(b"11 22\r\n/dev/pts/")
    command.write(b"word\r")
    while seen.count(b"word\r\n") < 2:  # the terminal's echo, and cat's
        seen += command.stdout.read(timeout=TIMEOUT)
    command.write(b"\x03")
    assert command.wait(TIMEOUT) == ExitStatus(signal=signal.SIGINT)


def test_a_terminal_is_resized(client):
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    command = client.run(shell(script, flags=RunFlag.TERMINAL))
    assert command.stdout.read() == b"ready\r\n"
    command.resize(33, 44)
    assert finish(command)[0] == b"33 44\r\n"


def test_user_and_groups(client):
    run = Run(("id",), ENVIRONMENT, uid=1234, gid=2345, groups=(10, 20))
    out, _, _ = finish(client.run(run))
    assert out.startswith(b"uid=1234 gid=2345 groups=2345,10(")


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (Run(("no-such-command",), ENVIRONMENT), CommandNotFoundError, "no command no-such-command"),
        (Run(("/no/such",)), CommandNotFoundError, "no command /no/such"),
        (Run(("/etc/passwd",)), NotExecutableError, "cannot execute /etc/passwd: Permission denied"),
        (Run(("passwd",), {"PATH": "/nowhere:/etc"}), NotExecutableError, "cannot execute passwd"),
        (Run(("true",), ENVIRONMENT, directory="/no/such"), AgentError, "no working directory /no/such"),
    ],
)
def test_what_cannot_run_is_said_as_a_shell_would(client, run, error, message):
    with pytest.raises(error, match=message):
        client.run(run)
    assert finish(client.run(shell("echo alive")))[0] == b"alive\n"


def test_requests_are_done_or_their_error_is_told(client, tmp_path):
    client.request(MakeDirectory(f"{tmp_path}/x/y"))
    client.request(MakeDirectory(f"{tmp_path}/x/y"))
    client.request(Link("target", f"{tmp_path}/x/link"))
    assert os.readlink(tmp_path / "x/link") == "target"
    with pytest.raises(AgentError, match="failed at link: File exists"):
        client.request(Link("target", f"{tmp_path}/x/link"))
    before = time.monotonic()
    with pytest.raises(AgentError, match="failed at mount: No such device"):
        client.request(Mount("none", f"{tmp_path}/x", "no-such-fs", wait=0.2))
    assert time.monotonic() - before > 0.2


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        bytes(28),
        struct.pack("<6I2H", 0, 0, 0, 0, 1, 0, 0, 0) + b"/\0true",
        struct.pack("<6I2H", 0, 0, 0, 0, 2, 0, 0, 0) + b"/\0true\0",
        struct.pack("<6I2H", 0, 0, 0, 0xFFFFFFFF, 1, 0, 0, 0) + b"/\0true\0",
        struct.pack("<6I2H", 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0, 0) + b"/\0true\0",
    ],
)
def test_a_malformed_request_is_refused(client, payload):
    class Malformed:
        kind = Kind.RUN

        def payload(self):
            return payload

    with pytest.raises(AgentError, match="failed at run: Invalid argument"):
        client.request(Malformed())
    assert finish(client.run(shell("echo alive")))[0] == b"alive\n"


def test_orphans_are_reaped(start_agent, tmp_path):
    if os.getuid() != 0:
        pytest.skip("a namespace of processes needs root")
    agent = start_agent(Isa.X86_64, prefix=["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"])
    agent.client.connect(TIMEOUT)
    command = agent.client.run(shell("sh -c 'sleep 0.05 & sleep 0.05 &'; sleep 0.3; ps -eo stat,comm"))
    out, _, status = finish(command)
    assert status == ExitStatus(code=0)
    assert b"<defunct>" not in out
    assert not [line for line in out.splitlines() if line.startswith(b"Z")]


def test_as_the_first_process_it_powers_off(start_agent, tmp_path):
    """In a process namespace reboot(2) ends its first process (pid_namespaces(7))."""
    if os.getuid() != 0:
        pytest.skip("a namespace of processes needs root")
    agent = start_agent(Isa.X86_64, prefix=["unshare", "--pid", "--mount", "--fork", "--mount-proc"])
    agent.client.connect(TIMEOUT)
    script = f"trap 'echo ended > {tmp_path}/ended; exit' TERM; echo ready; while :; do sleep 0.01; done"
    command = agent.client.run(shell(script))
    assert command.stdout.read() == b"ready\n"
    agent.client.shut_down(grace=5)
    agent.process.wait(TIMEOUT)
    assert (tmp_path / "ended").read_text() == "ended\n"


def test_without_a_host_it_ends_and_its_commands_with_it(start_agent):
    agent = start_agent()
    agent.client.connect(TIMEOUT)
    command = agent.client.run(shell("echo $$; exec sleep 1000"))
    pid = int(command.stdout.read())
    agent.client.close()
    agent.process.wait(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.01)
    assert time.monotonic() < deadline


def test_whoever_comes_anew_finds_the_beginning(start_agent):
    """A host that died may have left half a frame of the agent's in the channel."""
    agent = start_agent()
    stream = agent.client._stream
    rest = [HEADER.pack(100, 1, Kind.OUTPUT, 0) + b"x" * 50 + frame(Kind.DONE, 9, bytes(8))]
    read = stream.read
    stream.read = lambda size: rest.pop() if rest else read(size)
    assert agent.client.connect(TIMEOUT).version == 1
