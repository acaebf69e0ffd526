"""One conversation with gdb: each packet of the remote serial protocol and its answer.

Follows "Debugging with GDB", appendix "GDB Remote Serial Protocol", in all-stop mode. The owner runs the
target: `converse` answers packets until gdb wants it to go on, `report` tells gdb how that ended, and `poll`
is for what arrives meanwhile. Whatever the other side sends, the answer is an error and not an exception.
"""

from __future__ import annotations

import errno
from collections import deque
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from anyvirt.debug.packets import MAXIMUM_PACKET, Control, PacketReader, frame
from anyvirt.debug.signal_numbers import from_gdb, to_gdb
from anyvirt.debug.target import Ended, Object, PointKind, Resume, Stopped, TargetError
from anyvirt.errors import AnyvirtError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.debug.connection import Connection
    from anyvirt.debug.target import DebugTarget

_POINT_NAMES = {
    PointKind.SOFTWARE_BREAKPOINT: b"swbreak",
    PointKind.HARDWARE_BREAKPOINT: b"hwbreak",
    PointKind.WRITE: b"watch",
    PointKind.READ: b"rwatch",
    PointKind.ACCESS: b"awatch",
}
_SIGTRAP = 5
_OK = b"OK"
_ALL = -1
_ADDRESSES = 1 << 64
_LARGEST_POINT = 1 << 20


class Departure(Enum):
    """Why a conversation is over."""

    DETACHED = auto()
    """gdb wants the target to go on without it."""
    KILLED = auto()
    """gdb wants the target to end."""
    LOST = auto()
    """The line broke, or gdb hung up."""


class Arrival(Enum):
    """What came from gdb while the target ran."""

    NOTHING = auto()
    INTERRUPT = auto()
    LOST = auto()


Plan: TypeAlias = dict[int, Resume]
"""How each thread goes on; threads that are not in it stay where they are."""


class Session:
    """The protocol's state: who is looked at, what was agreed on, what was said last."""

    def __init__(self, connection: Connection, target: DebugTarget) -> None:
        self.connection = connection
        self.passed_signals: frozenset[int] = frozenset()
        """Signals, in the host's numbering, that gdb does not want to hear of."""
        self._target = target
        self._reader = PacketReader()
        self._arrived: deque[bytes | Control] = deque()
        self._acknowledges = True
        self._sent = b""
        self._peer_features: frozenset[bytes] = frozenset()
        self._thread = 0
        self._last: Stopped | Ended | None = None
        self._outcome: Plan | Departure | None = None

    # For the owner --------------------------------------------------------------------------------------

    def converse(self) -> Plan | Departure:
        """Answer packets until the target is to go on or to be left alone; LOST once the line broke."""
        self._outcome = None
        while self._outcome is None:
            if not self._arrived:
                data = self.connection.receive()
                if not data:
                    return Departure.LOST
                self._arrived.extend(self._reader.feed(data))
                continue
            self._take(self._arrived.popleft())
        return self._outcome

    def refuse(self, error: TargetError) -> None:
        """Tell gdb, which awaits a stop, that the target could not go on."""
        self._send(b"E." + str(error).encode())

    def report(self, event: Stopped | Ended, *, silently: bool = False) -> None:
        """Tell gdb why the target stopped; `silently`: only when it asks, because nothing is awaited."""
        self._last = event
        if isinstance(event, Stopped):
            self._thread = event.thread
        if not silently:
            self._send(self._stop_reply(event))

    @property
    def knows_execve(self) -> bool:
        """Whether gdb can be told that the target became another program; it then sets its points anew."""
        return b"exec-events+" in self._peer_features

    def poll(self) -> Arrival:
        """What has arrived while the target runs. Packets have no business then and are dropped."""
        arrival = Arrival.NOTHING
        while True:
            while self._arrived:
                if self._arrived.popleft() is Control.INTERRUPT:
                    arrival = Arrival.INTERRUPT
            if not self.connection.ready():
                return arrival
            data = self.connection.receive()
            if not data:
                return Arrival.LOST
            self._arrived.extend(self._reader.feed(data))

    # Framing --------------------------------------------------------------------------------------------

    def _take(self, item: bytes | Control) -> None:
        match item:
            case bytes():
                if self._acknowledges:
                    self.connection.send(b"+")
                reply = self._answer(item)
                if reply is not None:
                    self._send(reply)
            case Control.DAMAGED if self._acknowledges:
                self.connection.send(b"-")
            case Control.REFUSED if self._acknowledges:
                self.connection.send(self._sent)

    def _send(self, payload: bytes) -> None:
        self._sent = frame(payload)
        self.connection.send(self._sent)

    def _answer(self, packet: bytes) -> bytes | None:
        """The reply to a packet; None if there is none now, empty for what is not supported."""
        for length in range(min(len(packet), _LONGEST_COMMAND), 0, -1):
            handler = _COMMANDS.get(packet[:length])
            if handler is not None:
                return self._guarded(handler, packet[length:])
        return self._guarded(Session._of_target, packet)

    def _guarded(self, handler: Callable[[Session, bytes], bytes | None], rest: bytes) -> bytes | None:
        try:
            return handler(self, rest)
        except (ValueError, OverflowError):
            return _error(errno.EINVAL)
        except AnyvirtError:
            return _error(errno.EFAULT)

    def _of_target(self, packet: bytes) -> bytes:
        return self._target.packet(self._current(), packet)

    # Stops ----------------------------------------------------------------------------------------------

    def _stop_reply(self, event: Stopped | Ended) -> bytes:
        if isinstance(event, Ended):
            return b"X%02x" % to_gdb(event.signal) if event.signal else b"W%02x" % (event.status & 0xFF)
        facts = [b"thread:%x;" % event.thread]
        description = self._target.description
        for name in description.expedited:
            number = description.numbers[name]
            facts.append(b"%x:%s;" % (number, self._register(event.thread, number).hex().encode()))
        if event.executed is not None and self.knows_execve:
            facts.append(b"exec:%s;" % event.executed.hex().encode())
        elif event.edge is not None:
            facts.append(b"replaylog:%s;" % event.edge.value.encode())
        elif event.point is not None:
            facts.append(self._point_fact(event.point, event.address))
        return b"T%02x%s" % (to_gdb(event.signal), b"".join(facts))

    def _point_fact(self, kind: PointKind, address: int) -> bytes:
        name = _POINT_NAMES[kind]
        if kind.is_watchpoint:
            return b"%s:%x;" % (name, address)
        return b"%s:;" % name if name + b"+" in self._peer_features else b""

    def _why(self, _rest: bytes) -> bytes:
        return self._stop_reply(self._last or Stopped(self._current(), _SIGTRAP))

    # Threads --------------------------------------------------------------------------------------------

    def _current(self) -> int:
        threads = self._target.threads()
        return self._thread if self._thread in threads else threads[0]

    def _select(self, rest: bytes) -> bytes:
        operation, thread = rest[:1], _thread_id(rest[1:])
        if operation not in (b"g", b"c"):
            raise ValueError("this selects nothing")
        if thread > 0:
            if thread not in self._target.threads():
                return _error(errno.ESRCH)
            self._thread = thread
        return _OK

    def _is_alive(self, rest: bytes) -> bytes:
        return _OK if _thread_id(rest) in self._target.threads() else _error(errno.ESRCH)

    def _list_threads(self, _rest: bytes) -> bytes:
        return b"m" + b",".join(b"%x" % thread for thread in self._target.threads())

    def _current_thread(self, rest: bytes) -> bytes:
        # qCRC and others begin alike.
        return b"" if rest else b"QC%x" % self._current()

    def _describe_thread(self, rest: bytes) -> bytes:
        return self._target.thread_name(_thread_id(rest)).encode().hex().encode()

    # Registers ------------------------------------------------------------------------------------------

    def _register(self, thread: int, number: int) -> bytes:
        description = self._target.description
        register = description.registers[number]
        value = self._target.read_register(thread, number) & (1 << register.bits) - 1
        return value.to_bytes(register.size, description.byte_order)

    def _set_register(self, thread: int, number: int, content: bytes) -> None:
        value = int.from_bytes(content, self._target.description.byte_order)
        self._target.write_register(thread, number, value)

    def _read_registers(self, _rest: bytes) -> bytes:
        thread = self._current()
        count = len(self._target.description.common)
        return b"".join(self._register(thread, number) for number in range(count)).hex().encode()

    def _write_registers(self, rest: bytes) -> bytes:
        content, position = _from_hex(rest), 0
        if len(content) != sum(register.size for register in self._target.description.common):
            raise ValueError("not all registers")
        for number, register in enumerate(self._target.description.common):
            self._set_register(self._current(), number, content[position : position + register.size])
            position += register.size
        return _OK

    def _read_register(self, rest: bytes) -> bytes:
        number = self._register_number(rest)
        return self._register(self._current(), number).hex().encode()

    def _write_register(self, rest: bytes) -> bytes:
        digits, _, value = rest.partition(b"=")
        number, content = self._register_number(digits), _from_hex(value)
        if len(content) != self._target.description.registers[number].size:
            raise ValueError("a value of the wrong size")
        self._set_register(self._current(), number, content)
        return _OK

    def _register_number(self, digits: bytes) -> int:
        number = _number(digits)
        if number >= len(self._target.description.registers):
            raise ValueError("no such register")
        return number

    # Memory ---------------------------------------------------------------------------------------------

    def _read_memory(self, rest: bytes) -> bytes:
        address, length = _pair(rest)
        if not length:
            raise ValueError("nothing to read")
        data = self._target.read_memory(self._current(), address, min(length, MAXIMUM_PACKET // 2))
        return data.hex().encode()

    def _write_memory(self, rest: bytes) -> bytes:
        place, _, digits = rest.partition(b":")
        return self._store(place, _from_hex(digits))

    def _write_binary(self, rest: bytes) -> bytes:
        place, _, content = rest.partition(b":")
        return self._store(place, content)

    def _store(self, place: bytes, content: bytes) -> bytes:
        address, length = _pair(place)
        if length != len(content):
            raise ValueError("a length that does not agree with the data")
        if content:
            self._target.write_memory(self._current(), address, content)
        return _OK

    # Points ---------------------------------------------------------------------------------------------

    def _add_point(self, rest: bytes) -> bytes:
        self._target.add_point(*_point(rest))
        return _OK

    def _remove_point(self, rest: bytes) -> bytes:
        self._target.remove_point(*_point(rest))
        return _OK

    # Going on -------------------------------------------------------------------------------------------

    def _continue(self, rest: bytes) -> None:
        self._go_on(rest, Resume())

    def _step(self, rest: bytes) -> None:
        self._go_on(rest, Resume(step=True))

    def _continue_with_signal(self, rest: bytes) -> None:
        digits, _, address = rest.partition(b";")
        self._go_on(address, Resume(signal=_signal(digits)))

    def _step_with_signal(self, rest: bytes) -> None:
        digits, _, address = rest.partition(b";")
        self._go_on(address, Resume(step=True, signal=_signal(digits)))

    def _go_on(self, address: bytes, resume: Resume) -> None:
        """The old commands: the current thread as told; the others run if it does."""
        current = self._current()
        if address:
            self._target.write_register(
                current, self._target.description.program_counter, _number(address) % _ADDRESSES
            )
        others = {} if resume.step else dict.fromkeys(self._target.threads(), Resume())
        self._outcome = {**others, current: resume}

    def _step_back(self, rest: bytes) -> bytes | None:
        return self._go_back(rest, {self._current(): Resume(step=True, backwards=True)})

    def _continue_back(self, rest: bytes) -> bytes | None:
        return self._go_back(rest, dict.fromkeys(self._target.threads(), Resume(backwards=True)))

    def _go_back(self, rest: bytes, plan: Plan) -> bytes | None:
        if rest or not self._target.keeps_history:
            return b""
        self._outcome = plan
        return None

    def _supported_actions(self, _rest: bytes) -> bytes:
        return b"vCont;c;C;s;S;t;r"

    def _resume(self, rest: bytes) -> bytes | None:
        actions = [_action(text) for text in rest.split(b";")]
        plan: Plan = {}
        for thread in self._target.threads():
            for wanted, resume in actions:
                if wanted in (thread, _ALL):
                    if resume is not None:
                        plan[thread] = resume
                    break
        if not plan:
            raise ValueError("nobody goes on")
        self._outcome = plan
        return None

    def _detach(self, _rest: bytes) -> bytes:
        self._outcome = Departure.DETACHED
        return _OK

    def _kill(self, _rest: bytes) -> None:
        self._outcome = Departure.KILLED

    def _kill_process(self, _rest: bytes) -> bytes:
        self._outcome = Departure.KILLED
        return _OK

    # Agreements -----------------------------------------------------------------------------------------

    def _support(self, rest: bytes) -> bytes:
        self._peer_features = frozenset(rest.split(b";"))
        offers = [
            b"PacketSize=%x" % (MAXIMUM_PACKET - 1),
            b"QStartNoAckMode+", b"QPassSignals+", b"vContSupported+", b"swbreak+", b"hwbreak+",
            b"exec-events+", b"qXfer:features:read+",
        ]  # fmt: skip
        if self._target.keeps_history:
            offers += [b"ReverseStep+", b"ReverseContinue+"]
        offers += [b"qXfer:%s:read+" % item.value.encode() for item in Object if item in self._target.objects]
        return b";".join(offers)

    def _stop_acknowledging(self, _rest: bytes) -> bytes:
        self._acknowledges = False
        return _OK

    def _pass_signals(self, rest: bytes) -> bytes:
        numbers = (from_gdb(_number(digits)) for digits in rest.split(b";") if digits)
        self.passed_signals = frozenset(number for number in numbers if number)
        return _OK

    def _is_attached(self, _rest: bytes) -> bytes:
        return b"1" if self._target.attached else b"0"

    def _transfer(self, rest: bytes) -> bytes:
        name, operation, annex, window = rest.split(b":", 3)
        offset, length = _pair(window)
        content = self._object(name, annex)
        if content is None or operation != b"read":
            return b""
        length = min(length, MAXIMUM_PACKET // 2)
        piece = content[offset : offset + length]
        return (b"m" if offset + length < len(content) else b"l") + piece

    def _object(self, name: bytes, annex: bytes) -> bytes | None:
        if name == b"features":
            return self._target.description.xml().encode() if annex == b"target.xml" else None
        for item in Object:
            if item.value.encode() == name:
                return self._target.objects.get(item)
        return None


def _error(number: int) -> bytes:
    return b"E%02x" % number


def _number(digits: bytes) -> int:
    """A hexadecimal number of at most 64 bits, nothing else. Raises ValueError."""
    if not 0 < len(digits) <= 16 or digits.strip(b"0123456789abcdefABCDEF"):
        raise ValueError("no hexadecimal number")
    return int(digits, 16)


def _pair(text: bytes) -> tuple[int, int]:
    first, _, second = text.partition(b",")
    return _number(first), _number(second)


def _from_hex(digits: bytes) -> bytes:
    return bytes.fromhex(digits.decode("ascii", "strict"))


def _thread_id(text: bytes) -> int:
    """A thread's number; -1 means all, 0 any."""
    return _ALL if text == b"-1" else _number(text)


def _signal(digits: bytes) -> int:
    number = from_gdb(_number(digits))
    if number is None:
        raise ValueError("no signal of this host")
    return number


def _point(rest: bytes) -> tuple[PointKind, int, int]:
    """`TYPE,ADDRESS,KIND`; conditions and commands that may follow were not offered."""
    kind, _, place = rest.partition(b",")
    address, length = _pair(place.partition(b";")[0])
    if length > _LARGEST_POINT or address + length > _ADDRESSES:
        raise TargetError("too much to watch")
    return PointKind(_number(kind)), address, length


def _action(text: bytes) -> tuple[int, Resume | None]:
    """One action of vCont: for which thread (-1: all), and how it goes on (None: not)."""
    action, _, thread = text.partition(b":")
    wanted = _thread_id(thread) if thread else _ALL
    letter, rest = action[:1], action[1:]
    match letter:
        case b"c" | b"s" if not rest:
            return wanted, Resume(step=letter == b"s")
        case b"C" | b"S":
            return wanted, Resume(step=letter == b"S", signal=_signal(rest))
        case b"r":
            return wanted, Resume(step=True, within=_pair(rest))
        case b"t" if not rest:
            return wanted, None
    raise ValueError("no action")


def _empty_list(_session: Session, _rest: bytes) -> bytes:
    return b"l"


def _accept(_session: Session, _rest: bytes) -> bytes:
    return _OK


_COMMANDS: dict[bytes, Callable[[Session, bytes], bytes | None]] = {
    b"?": Session._why,
    b"g": Session._read_registers,
    b"G": Session._write_registers,
    b"p": Session._read_register,
    b"P": Session._write_register,
    b"m": Session._read_memory,
    b"M": Session._write_memory,
    b"X": Session._write_binary,
    b"Z": Session._add_point,
    b"z": Session._remove_point,
    b"H": Session._select,
    b"T": Session._is_alive,
    b"c": Session._continue,
    b"C": Session._continue_with_signal,
    b"s": Session._step,
    b"S": Session._step_with_signal,
    b"bs": Session._step_back,
    b"bc": Session._continue_back,
    b"D": Session._detach,
    b"k": Session._kill,
    b"vKill": Session._kill_process,
    b"vCont?": Session._supported_actions,
    b"vCont;": Session._resume,
    b"qSupported": lambda session, rest: session._support(rest.removeprefix(b":")),
    b"qC": Session._current_thread,
    b"qfThreadInfo": Session._list_threads,
    b"qsThreadInfo": _empty_list,
    b"qThreadExtraInfo,": Session._describe_thread,
    b"qAttached": Session._is_attached,
    b"qSymbol:": _accept,
    b"qXfer:": Session._transfer,
    b"QStartNoAckMode": Session._stop_acknowledging,
    b"QPassSignals:": Session._pass_signals,
}
"""Each command by how its packet begins; the longest match counts."""
_LONGEST_COMMAND = max(map(len, _COMMANDS))
