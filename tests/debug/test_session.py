"""The remote serial protocol's commands, asked by a client that is not gdb, hostile ones included."""

import random
import time
import xml.etree.ElementTree as xml

import pytest

from anyvirt.debug.session import Departure
from anyvirt.debug.signal_numbers import from_gdb, to_gdb
from anyvirt.debug.target import Ended, HistoryEdge, PointKind, Resume, Stopped, TargetError

from .remote import STOPPED, Client, FakeTarget, Served, packet

ERROR = (b"E16", b"E0e", b"E03")


@pytest.fixture
def target():
    return FakeTarget()


@pytest.fixture
def served(target):
    return Served(target)


@pytest.fixture
def client(served):
    with served as client:
        yield client


def test_what_is_offered(client):
    offers = client.ask(b"qSupported:multiprocess+;swbreak+").split(b";")
    assert {b"QStartNoAckMode+", b"vContSupported+", b"qXfer:features:read+", b"qXfer:auxv:read+"} <= {
        *offers
    }
    assert client.ask(b"vCont?") == b"vCont;c;C;s;S;t;r"
    assert client.ask(b"qAttached") == b"1"
    assert client.ask(b"vMustReplyEmpty") == b""


def test_acknowledgements_end_when_asked(client):
    client.send(b"QStartNoAckMode")
    assert client.byte() == b"+"
    assert client.reply() == b"OK"
    client.acknowledges = False
    client.send(b"qC")
    assert client.byte() == b"$"


def test_a_damaged_packet_is_asked_for_again(client):
    client.peer.sendall(b"$g#00")
    assert client.byte() == b"-"
    assert client.ask(b"qC") == b"QC1"
    client.peer.sendall(b"-")
    assert client.reply() == b"QC1"


def test_registers(client, target):
    target.registers[1][2] = 0x1122334455667788
    count = len(target.description.registers)
    content = bytes.fromhex(client.ask(b"g").decode())
    assert len(content) == sum(register.bits // 8 for register in target.description.registers)
    assert content[16:24] == bytes.fromhex("8877665544332211")
    assert client.ask(b"p2") == b"8877665544332211"
    assert client.ask(b"P20=0010000000000000") == b"OK"
    assert target.registers[1][32] == 0x1000
    changed = bytearray(content)
    changed[8] = 7
    assert client.ask(b"G" + bytes(changed).hex().encode()) == b"OK"
    assert target.registers[1][1] == 7
    assert client.ask(b"p%x" % count) in ERROR
    assert client.ask(b"P1=00") in ERROR
    assert client.ask(b"G00") in ERROR


def test_threads_have_their_own_registers(client, target):
    target.registers[2][1] = 0xAB
    assert client.ask(b"qfThreadInfo") == b"m1,2"
    assert client.ask(b"qsThreadInfo") == b"l"
    assert client.ask(b"Hg2") == b"OK"
    assert client.ask(b"p1") == b"ab00000000000000"
    assert bytes.fromhex(client.ask(b"qThreadExtraInfo,2").decode()) == b"hart 2"
    assert client.ask(b"T2") == b"OK"
    assert client.ask(b"T3") in ERROR
    assert client.ask(b"Hg3") in ERROR


def test_memory(client, target):
    assert client.ask(b"M1010,3:616263") == b"OK"
    assert client.ask(b"m1010,3") == b"616263"
    client.peer.sendall(packet(b"X1020,4:}\x03}\x04}]}\x0a"))
    assert client.reply() == b"OK"
    assert target.memory[0x20:0x24] == b"#$}*"
    # No more than there is.
    assert client.ask(b"m1ffe,10") == b"0000"
    assert client.ask(b"m0,4") in ERROR
    assert client.ask(b"M1010,4:61") in ERROR
    assert client.ask(b"m1000,ffffffffffffffff")


def test_points(client, target):
    for number, kind in enumerate(PointKind):
        assert client.ask(b"Z%d,1004,4" % number) == b"OK"
        assert (kind, 0x1004, 4) in target.points
        assert client.ask(b"z%d,1004,4" % number) == b"OK"
    assert not target.points
    assert client.ask(b"Z5,1004,4") in ERROR
    assert client.ask(b"Z2,1004,ffffffffff") in ERROR


def test_objects_come_in_pieces(client, target):
    content, offset = b"", 0
    while True:
        reply = client.ask(b"qXfer:auxv:read::%x,1000" % offset)
        content += reply[1:]
        offset = len(content)
        if reply[:1] == b"l":
            break
    assert content == bytes(range(256)) * 300
    assert client.ask(b"qXfer:nothing:read::0,100") == b""
    assert client.ask(b"qXfer:auxv:write::0,100") == b""


def test_the_target_description_is_xml_that_numbers_all_registers(client, target):
    document = xml.fromstring(client.ask(b"qXfer:features:read:target.xml:0,ffff")[1:])
    registers = list(document.iter("reg"))
    assert [register.get("name") for register in registers] == [r.name for r in target.description.registers]
    assert document.find("architecture").text == "riscv:rv64"


@pytest.mark.parametrize(
    ("command", "plan"),
    [
        (b"c", {1: Resume(), 2: Resume()}),
        (b"s", {1: Resume(step=True)}),
        (b"C0b", {1: Resume(signal=11), 2: Resume()}),
        (b"S1e", {1: Resume(step=True, signal=10)}),
        (b"vCont;c", {1: Resume(), 2: Resume()}),
        (b"vCont;s:2;c", {1: Resume(), 2: Resume(step=True)}),
        (b"vCont;s:2;t", {2: Resume(step=True)}),
        (b"vCont;r1000,1010:1", {1: Resume(step=True, within=(0x1000, 0x1010))}),
        (b"vCont;C1e:2;c:-1", {1: Resume(), 2: Resume(signal=10)}),
    ],
)
def test_ways_to_go_on(client, target, command, plan):
    target.events = [Stopped(thread=2, signal=5)]
    assert client.ask(command).startswith(b"T05thread:2;")
    assert target.plans == [plan]
    assert client.ask(b"qC") == b"QC2"


@pytest.mark.parametrize(
    ("command", "plan"),
    [
        (b"bs", {1: Resume(step=True, backwards=True)}),
        (b"bc", {1: Resume(backwards=True), 2: Resume(backwards=True)}),
    ],
)
def test_ways_to_go_back(client, target, command, plan):
    assert client.ask(command) == b""
    assert b"Reverse" not in client.ask(b"qSupported")
    target.keeps_history = True
    assert {b"ReverseStep+", b"ReverseContinue+"} <= {*client.ask(b"qSupported").split(b";")}
    assert client.ask(command + b"1") == b""
    target.events = [Stopped(1, 5, edge=HistoryEdge.BEGINNING), Stopped(1, 5, edge=HistoryEdge.END)]
    assert client.ask(command).endswith(b";replaylog:begin;")
    assert client.ask(b"c").endswith(b";replaylog:end;")
    assert target.plans[0] == plan


def test_a_target_that_cannot_go_on_says_why(client, target):
    target.events = [TargetError("it goes another way"), STOPPED]
    assert client.ask(b"c") == b"E.it goes another way"
    assert client.ask(b"c").startswith(b"T05")


def test_going_on_elsewhere(client, target):
    target.events = [STOPPED]
    client.ask(b"c1234")
    assert target.registers[1][32] == 0x1234


def test_how_stops_are_told(client, target):
    client.ask(b"qSupported:swbreak+;hwbreak+;exec-events+")
    cases = {
        Stopped(1, 5, PointKind.SOFTWARE_BREAKPOINT): b"T05thread:1;@swbreak:;",
        Stopped(1, 5, PointKind.READ, 0x1010): b"T05thread:1;@rwatch:1010;",
        Stopped(2, 10): b"T1ethread:2;@",
        Stopped(1, 5, executed=b"/bin/x"): b"T05thread:1;@exec:2f62696e2f78;",
    }
    for event, told in cases.items():
        target.events = [event]
        reply = client.ask(b"c")
        head, _, tail = told.partition(b"@")
        assert reply.startswith(head), reply
        assert reply.endswith(tail), reply
        assert client.ask(b"?") == reply


@pytest.mark.parametrize(("event", "told"), [(Ended(status=3), b"W03"), (Ended(signal=11), b"X0b")])
def test_how_ends_are_told(target, event, told):
    target.events = [event]
    served = Served(target)
    with served as client:
        assert client.ask(b"c") == told
    assert served.outcome == event


def test_an_interrupt_stops_a_running_target(client, target):
    target.events = ["forever", STOPPED]
    client.send(b"vCont;C0b")
    client.peer.sendall(b"\x03")
    assert client.reply().startswith(b"T02thread:1;")


def test_a_packet_at_the_wrong_time_is_no_interrupt(client, target):
    target.events = ["forever", STOPPED]
    client.send(b"vCont;C0b")
    while not target.plans:
        time.sleep(0.01)
    client.send(b"g")
    assert client.reply().startswith(b"T05")
    # A signal is delivered once.
    assert [plan[1].signal for plan in target.plans] == [11, 0]


@pytest.mark.parametrize(
    ("command", "departure"),
    [(b"D", Departure.DETACHED), (b"vKill;1", Departure.KILLED), (b"k", Departure.KILLED)],
)
def test_leaving(target, command, departure):
    served = Served(target)
    with served as client:
        client.send(command)
        if command != b"k":
            assert client.reply() == b"OK"
        served._thread.join(10)
    assert served.outcome == target.left == departure


@pytest.mark.parametrize("running", [False, True])
def test_a_debugger_that_disappears_lets_the_target_go(target, running):
    target.events = ["forever"]
    served = Served(target)
    with served as client:
        if running:
            client.send(b"c")
    assert served.outcome == Departure.LOST
    assert target.left == Departure.DETACHED


def test_signals_that_need_not_be_told(client):
    assert client.ask(b"QPassSignals:e;1e;ff") == b"OK"


def test_signal_numbers_are_gdbs():
    assert [to_gdb(number) for number in (2, 7, 10, 11, 12, 17, 31)] == [2, 10, 30, 11, 31, 20, 12]
    assert [to_gdb(number) for number in (32, 33, 34, 63, 64)] == [77, 45, 46, 75, 78]
    assert all(from_gdb(to_gdb(number)) == number for number in range(65) if to_gdb(number) != 143)


def test_nonsense_is_answered_and_survived(target):
    """Random packets and mutations of good ones: an answer to each, and the session still works."""
    generator = random.Random(3)
    good = [
        b"g", b"p1", b"P1=0", b"m1000,10", b"M1000,2:0000", b"X1000,2:ab", b"Z0,1000,4", b"z2,1000,4",
        b"vCont;c", b"vCont;s:1;c:2", b"Hg1", b"qXfer:features:read:target.xml:0,ff", b"qSupported:a+",
        b"QPassSignals:1;2", b"T1", b"C05", b"s1000", b"qThreadExtraInfo,1", b"qSymbol::", b"G00",
    ]  # fmt: skip
    target.events = [STOPPED] * 10000
    with Served(target) as client:
        client.ask(b"QStartNoAckMode")
        client.acknowledges = False
        for _ in range(3000):
            body = bytearray(generator.choice(good))
            for _ in range(generator.randrange(1, 4)):
                match generator.randrange(3):
                    case 0:
                        body[generator.randrange(len(body))] = generator.choice(b"0fF-;:,=+zZ \x80\xff")
                    case 1:
                        body.insert(generator.randrange(len(body) + 1), generator.choice(b"0f;:,=-\x00"))
                    case 2 if len(body) > 1:
                        del body[generator.randrange(len(body))]
            if body[:1] in (b"k", b"D") or body.startswith(b"vKill"):
                continue
            client.ask(bytes(body))
        assert client.ask(b"qC").startswith(b"QC")


def test_noise_before_and_between_packets(target):
    generator = random.Random(4)
    with Served(target) as client:
        for _ in range(100):
            noise = bytes(byte for byte in generator.randbytes(100) if byte != ord("$"))
            client.peer.sendall(noise)
            client.peer.sendall(packet(b"T1"))
            reply = Client.reply(client)
            while reply != b"OK":
                reply = Client.reply(client)
