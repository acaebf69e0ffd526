"""A conversation that another client goes on with: of its streams nothing is lost and nothing comes twice."""

import random
import threading
import time

import pytest

from anyvirt.agent.client import AgentClient, AgentError
from anyvirt.agent.protocol import Run
from anyvirt.errors import AnyvirtError
from anyvirt.monitor.agent_channel import AgentChannel

TIMEOUT = 30


class Line:
    """Carries between an agent and a channel, in place of a machine: it stands while `lock` is held."""

    def __init__(self, connection):
        self.lock = threading.Lock()
        self.channel = AgentChannel()
        self._socket = connection
        for work in (self._from_agent, self._to_agent):
            threading.Thread(target=work, daemon=True).start()

    def _from_agent(self):
        while data := memoryview(self._receive()):
            while data:
                with self.lock:
                    data = data[self.channel.give(data) :]
                if data:
                    time.sleep(0.001)

    def _receive(self):
        try:
            return self._socket.recv(7000)
        except OSError:
            return b""

    def _to_agent(self):
        while True:
            with self.lock:
                data = self.channel.take(5000)
            try:
                self._socket.sendall(data)
            except OSError:
                return
            if not data:
                time.sleep(0.001)


class Reader:
    """Reads a command's output in a thread until it is stopped."""

    def __init__(self, command, into):
        self._command, self._into = command, into
        self._is_wanted = True
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        while self._is_wanted:
            try:
                data = self._command.stdout.read(3000, timeout=0.01)
            except TimeoutError:
                continue
            if not data:
                return
            self._into += data

    def stop(self):
        self._is_wanted = False
        self._thread.join()


@pytest.fixture
def line(start_agent):
    agent = start_agent()
    line = Line(agent.client._stream._socket)
    yield line
    line.channel.close()


def hand_over(line, client):
    """Another client, and its commands by their identities."""
    with client.held(), line.lock:
        left = line.channel.drain()
        state = client.save_state()
        old, line.channel = line.channel, AgentChannel()
        line.channel.resume(left)
    old.close()
    following = AgentClient(line.channel)
    return following, following.resume(state)


def test_streams_go_on(line):
    client = AgentClient(line.channel)
    client.connect(TIMEOUT)
    words = ("sh", "-c", "cat; echo end; exec sleep 1000")
    command = client.run(Run(words, {"PATH": "/bin:/usr/bin"}), TIMEOUT)
    source, sent, received = random.Random(1), bytearray(), bytearray()
    for _ in range(12):
        reader = Reader(command, received)
        data = source.randbytes(source.randrange(150_000))
        command.write(data, TIMEOUT)
        sent += data
        reader.stop()
        client, commands = hand_over(line, client)
        (following,) = commands.values()
        assert (following.pid, following.identity) == (command.pid, command.identity)
        command = following
    command.close_input()
    _, commands = hand_over(line, client)
    (command,) = commands.values()
    command.write(b"behind the end", TIMEOUT)
    command.close_input()
    rest = len(sent) - len(received) + len(b"end\n")
    while rest:
        received += (data := command.stdout.read(rest, TIMEOUT))
        rest -= len(data)
    assert received == sent + b"end\n"
    command.signal(9)
    assert command.wait(TIMEOUT).signal == 9


def test_what_the_old_client_asked_is_not_answered_to_the_new_one(line):
    client = AgentClient(line.channel)
    client.connect(TIMEOUT)
    first = client.run(Run(("sleep", "100"), {"PATH": "/bin:/usr/bin"}), TIMEOUT)
    client, commands = hand_over(line, client)
    assert commands.keys() == {first.identity}
    commands[first.identity].signal(9)
    assert commands[first.identity].wait(TIMEOUT).signal == 9
    second = client.run(Run(("true",), {"PATH": "/bin:/usr/bin"}), TIMEOUT)
    assert second.identity > first.identity and second.wait(TIMEOUT).code == 0


def test_a_conversation_that_is_over_is_not_saved(line):
    client = AgentClient(line.channel)
    client.connect(TIMEOUT)
    line.channel.close()
    with pytest.raises(AgentError):
        client.wait_for(lambda: False, TIMEOUT)
    with pytest.raises(AgentError, match="gone"):
        client.save_state()


def test_a_channel_that_nobody_reads_cannot_be_drained(monkeypatch):
    monkeypatch.setattr("anyvirt.monitor.agent_channel._DRAIN_LIMIT", 0.01)
    channel = AgentChannel()
    channel.give(memoryview(b"data"))
    with pytest.raises(AnyvirtError, match="nobody takes"):
        channel.drain()


def test_who_sends_for_ever_keeps_nobody_waiting_for_ever(line, monkeypatch):
    monkeypatch.setattr("anyvirt.agent.client._HOLD_LIMIT", 0.01)
    client = AgentClient(line.channel)
    client.connect(TIMEOUT)
    with client.held():
        done = []

        def hold():
            with pytest.raises(AgentError, match="does not take"), client.held():
                pass
            done.append(True)

        other = threading.Thread(target=hold)
        other.start()
        other.join(TIMEOUT)
        assert done
