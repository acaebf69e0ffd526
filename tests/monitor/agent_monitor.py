"""A monitor whose machine is the agent's build for the host, in namespaces of its own: a stand-in."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from anyvirt.agent.build import agent_program
from anyvirt.agent.protocol import Channel, HostName, plan
from anyvirt.agent.streams import SocketStream
from anyvirt.errors import UsageError
from anyvirt.isa.names import Isa
from anyvirt.monitor.machine import End
from anyvirt.monitor.server import serve


class AgentMachine:
    """Process 1 of a namespace. Satisfies `anyvirt.monitor.machine.MonitoredMachine`."""

    shares = ()
    network = ()
    conversation = None
    is_lasting = False

    def __init__(self, order, phases):
        if order.append == "refuse":
            raise UsageError("the machine cannot be made")
        self._directory = os.environ["ANYVIRT_TEST_DIRECTORY"]
        program = Path(self._directory, f"agent-{os.getpid()}")
        program.write_bytes(agent_program(Isa.X86_64))
        program.chmod(0o755)
        ours, theirs = socket.socketpair()
        steps = [Channel(str(theirs.fileno())), HostName(order.host_name)]
        path = Path(self._directory, f"plan-{os.getpid()}")
        path.write_bytes(plan(steps))
        words = ["unshare", "--fork", "--pid", "--mount-proc", "--uts", "--kill-child", str(program)]
        self._process = subprocess.Popen(
            [*words, f"--plan={path}"], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._kept = ours, socket.socketpair()
        # Of one that is silent, the channel leads nowhere.
        self.channel = SocketStream(self._kept[1][0] if order.append == "silent" else ours)
        self._crashes = order.append == "crash"
        self.is_counted = order.seed is not None
        self._ours = ours
        phases.mark("machine")

    def run(self, say):
        if self._crashes:
            os.kill(os.getpid(), signal.SIGSEGV)
        self._process.wait()
        return End.OFF

    def advance(self):
        """It cannot be counted, but waits for the agent."""
        ending = os.pidfd_open(self._process.pid)
        ready = select.select([self._ours, ending], [], [])[0]
        os.close(ending)
        return None if self._ours in ready else End.OFF

    instructions = 12345

    def pause(self):
        self._all(signal.SIGSTOP)

    def resume(self):
        self._all(signal.SIGCONT)

    def snapshot(self, directory, *, compress, conversation):
        raise UsageError("this machine cannot be saved")

    def close(self):
        self._process.kill()

    def console_tail(self):
        return "; no console"

    def _all(self, number):
        """The processes in the namespace, which the host sees as descendants of unshare."""
        for pid in _descendants(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid):
    """Those that there are still; processes end at any time."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [each for child in children for each in (child, *_descendants(child))]


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    serve(int(sys.argv[1]), AgentMachine)
