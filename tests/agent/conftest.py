"""An agent on the host: its build for the host's CPU, or for RISC-V under QEMU, at the end of a socket."""

import os
import shutil
import signal
import socket
import subprocess

import pytest

from anyvirt.agent.build import agent_program
from anyvirt.agent.client import AgentClient
from anyvirt.agent.protocol import Channel, plan
from anyvirt.agent.streams import SocketStream
from anyvirt.isa.names import Isa

RUNNERS = {Isa.X86_64: [], Isa.RISCV64: ["qemu-riscv64-static"]}
TIMEOUT = 30


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """The path of the agent's program for an ISA."""
    directory = tmp_path_factory.mktemp("agent")

    def build(isa):
        path = directory / isa
        if not path.exists():
            path.write_bytes(agent_program(isa))
            path.chmod(0o755)
        return path

    return build


class RunningAgent:
    """A process with an agent, and the client at its channel."""

    def __init__(self, command, directory, requests=()):
        ours, theirs = socket.socketpair()
        steps = [Channel(str(theirs.fileno())), *requests]
        (directory / "plan").write_bytes(plan(steps))
        self.process = subprocess.Popen(
            [*command, f"--plan={directory / 'plan'}"],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.client = AgentClient(SocketStream(ours))

    def stop(self):
        self.client.close()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise
        finally:
            self.process.stderr.close()


@pytest.fixture
def start_agent(programs, tmp_path):
    """Start an agent: `start_agent(isa, *requests, prefix=[...])`."""
    running = []

    def start(isa=Isa.X86_64, *requests, prefix=()):
        for tool in RUNNERS[isa]:
            if shutil.which(tool) is None:
                pytest.skip(f"needs {tool} (package qemu-user-static)")
        if isa is Isa.X86_64 and os.uname().machine != "x86_64":
            pytest.skip("the host's CPU is not an x86-64")
        agent = RunningAgent([*prefix, *RUNNERS[isa], programs(isa)], tmp_path, requests)
        running.append(agent)
        return agent

    yield start
    for agent in running:
        agent.stop()
