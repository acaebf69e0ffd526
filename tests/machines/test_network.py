"""The network card of machines made in Python: where a driver finds it, and what may not be asked for."""

import os

import pytest

import anyvirt
from anyvirt.errors import UsageError
from anyvirt.isa.riscv64_system import riscv64_system
from anyvirt.machines.network import attach_vsock

SLOT = 0x1000_1000


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "loop.bin"
    path.write_bytes(riscv64_system.assemble("loop: jal zero, loop", pc=0x8000_0000))
    return path


def word(machine, offset):
    return int.from_bytes(machine.memory[SLOT + offset : SLOT + offset + 4], "little")


def test_a_driver_finds_a_card(in_namespace, program):
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("the host has no /dev/net/tun")

    def scenario():
        with anyvirt.Machine(firmware=program, memory="16M", network="tap") as machine:
            assert (word(machine, 0), word(machine, 8)) == (0x74726976, 1)
            assert word(machine, 0x100 + 8) >> 16 == 65520
            assert b"virtio_mmio@10001000" in machine.board.device_tree()
            machine.run(seconds=0.05)
            before = machine.board.save_state()
            machine.board.load_state(before)
            assert os.path.exists("/proc/thread-self/net/dev_snmp6/anyvirt0")
        assert not os.path.exists("/proc/thread-self/net/dev_snmp6/anyvirt0")

    in_namespace(scenario)


def test_a_driver_finds_virtual_sockets(program, tmp_path):
    with anyvirt.Machine(firmware=program, memory="16M", vsock=tmp_path / "vm") as machine:
        assert word(machine, 8) == 19
        assert word(machine, 0x100) == 3
        with machine.vsock.connect(5) as connection:
            connection.settimeout(30)
            machine.run(seconds=0.05)
            assert connection.recv(1) == b"", "there is no driver"
        machine.board.load_state(machine.board.save_state())
    assert not list(tmp_path.glob("vm*"))


def test_a_copy_is_joined_anew(program):
    with anyvirt.Machine(firmware=program, memory="16M", vsock=True) as machine:
        with pytest.raises(UsageError, match="cannot be cloned"):
            machine.clone()
        hosts = []
        copy = machine.clone(attach=lambda board: hosts.append(attach_vsock(board, None)))
        assert word(copy, 8) == 19
        hosts[0].close()


def test_what_comes_from_others_is_not_kept(program, tmp_path):
    with anyvirt.Machine(firmware=program, memory="16M", vsock=True) as machine:
        for attempt in (machine.keep_history, lambda: machine.record(tmp_path / "recording")):
            with pytest.raises(UsageError, match="with a network or virtual sockets cannot be"):
                attempt()
    assert not (tmp_path / "recording").exists()


def test_without_virtual_sockets_there_are_none(program):
    machine = anyvirt.Machine(firmware=program, memory="16M")
    with pytest.raises(UsageError, match="vsock=True"):
        machine.vsock.connect(5)


def test_without_a_network_there_is_none(program):
    with anyvirt.Machine(firmware=program, memory="16M", network="none") as machine:
        assert "network" not in machine.board.devices


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"network": "bridge"}, "network 'bridge' is not none, user, tap or tap:NAME"),
        ({"publish": ["80:80"]}, "ask for the network `user`"),
        ({"network": "user", "publish": ["80"]}, "published port '80' is not"),
    ],
)
def test_mistakes_have_sentences(program, parts, complaint):
    with pytest.raises(UsageError, match=complaint):
        anyvirt.Machine(firmware=program, memory="16M", **parts)
