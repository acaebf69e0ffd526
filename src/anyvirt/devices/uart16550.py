"""The 16550A UART: a serial port with FIFOs of 16 characters.

National Semiconductor PC16550D data sheet (June 1995), section 8. Characters that are written have left at
once; those that arrive wait until there is room for them, so the line itself never overruns.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING

from anyvirt.devices.clock import SECOND
from anyvirt.devices.saved_state import SavedState

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import State, Wire
    from anyvirt.devices.clock import Alarm, Clock

SIZE = 8
CLOCK_FREQUENCY = 3_686_400
"""Hz, as on QEMU's `virt`; characters take 16 of its cycles, times the divisor, for each bit."""
FIFO_LENGTH = 16
_TRIGGER_LEVELS = (1, 4, 8, 14)
_RESET_DIVISOR = 12
_MOST_UNSEEN = 1024
_LONGEST_UNSEEN = 10_000_000
"""Printed characters are handed over in pieces: after so many, so many nanoseconds, or a line."""
_VERSION = 1


class Register(IntEnum):
    """Offsets of the registers. With DLAB the first two mean something else, like the third when written."""

    RBR_THR_DLL = 0
    IER_DLM = 1
    IIR_FCR = 2
    LCR = 3
    MCR = 4
    LSR = 5
    MSR = 6
    SCR = 7


class InterruptEnable(IntFlag):
    """IER, section 8.6."""

    RECEIVED_DATA = 1
    TRANSMITTER_EMPTY = 2
    LINE_STATUS = 4
    MODEM_STATUS = 8


class InterruptId(IntEnum):
    """IIR, section 8.5 and table IV: the pending interrupt of the highest priority."""

    NONE = 0x1
    LINE_STATUS = 0x6
    RECEIVED_DATA = 0x4
    CHARACTER_TIMEOUT = 0xC
    TRANSMITTER_EMPTY = 0x2
    MODEM_STATUS = 0x0


class FifoControl(IntFlag):
    """FCR, section 8.4; the upper two bits choose a trigger level."""

    ENABLE = 0x1
    RESET_RECEIVER = 0x2
    RESET_TRANSMITTER = 0x4
    TRIGGER = 0xC0


class LineControl(IntFlag):
    """LCR, section 8.1."""

    WORD_LENGTH = 0x3
    STOP_BITS = 0x4
    PARITY = 0x8
    DLAB = 0x80


class ModemControl(IntFlag):
    """MCR, section 8.7."""

    DTR = 0x1
    RTS = 0x2
    OUT1 = 0x4
    OUT2 = 0x8
    LOOP = 0x10


class LineStatus(IntFlag):
    """LSR, section 8.3."""

    DATA_READY = 0x1
    OVERRUN = 0x2
    PARITY = 0x4
    FRAMING = 0x8
    BREAK = 0x10
    THR_EMPTY = 0x20
    TRANSMITTER_EMPTY = 0x40
    FIFO_ERROR = 0x80


class ModemStatus(IntFlag):
    """MSR, section 8.8. The lower half says what has changed since it was read."""

    DELTA_CTS = 0x1
    DELTA_DSR = 0x2
    TRAILING_EDGE_RI = 0x4
    DELTA_DCD = 0x8
    CTS = 0x10
    DSR = 0x20
    RI = 0x40
    DCD = 0x80


# Plain numbers: arithmetic on IntFlag takes microseconds, and these are in the path of each character.
_ERRORS = 0x1E
_DELTAS = 0x0F
_DATA_READY = int(LineStatus.DATA_READY)
_FIFO_ERROR = int(LineStatus.FIFO_ERROR)
_BREAK = int(LineStatus.BREAK)
_OVERRUN = int(LineStatus.OVERRUN)
_EMPTY = int(LineStatus.THR_EMPTY | LineStatus.TRANSMITTER_EMPTY)
_RING = int(ModemStatus.RI)
_CONNECTED = int(ModemStatus.CTS | ModemStatus.DSR | ModemStatus.DCD)
_LOOP = int(ModemControl.LOOP)
_DLAB = int(LineControl.DLAB)
_WORD_LENGTH = int(LineControl.WORD_LENGTH)
_PARITY = int(LineControl.PARITY)
_STOP_BITS = int(LineControl.STOP_BITS)
_FIFO = int(FifoControl.ENABLE)
_NEWLINE = 0x0A

_SAVED = (
    ("interrupt_enable", 4),
    ("fifo_control", 8),
    ("line_control", 8),
    ("modem_control", 5),
    ("modem_status", 8),
    ("errors", 5),
    ("scratch", 8),
    ("divisor", 16),
    ("data", 8),
)
"""Registers that are saved as they are, and their widths in bits."""


class Uart16550:
    """A 16550A whose other end is a terminal that is there: CTS, DSR and DCD are active.

    Its registers are bytes; a larger access is one of several registers in a row.
    """

    def __init__(self, clock: Clock, wire: Wire, *, output: Callable[[bytes], object]) -> None:
        """`output` is given what the guest prints; `input` takes what somebody types."""
        self._clock = clock
        self._wire = wire
        self._output = output
        self._printed = bytearray()
        self._hand_over: Alarm | None = None
        self._watch: Alarm | None = None
        self._received: deque[int] = deque()
        """Characters with the errors that came with them (LineStatus) in bits 8 to 15."""
        self._refused = False
        self._idle_since = 0
        self.on_room: Callable[[], None] | None = None
        """Called when everything received has been read, if `input` had refused something."""
        self._readers = (
            self._read_data,
            self._read_interrupt_enable,
            self._read_interrupt_id,
            lambda: self._line_control,
            lambda: self._modem_control,
            self._read_line_status,
            self._read_modem_status,
            lambda: self._scratch,
        )
        self._writers = (
            self._write_data,
            self._write_interrupt_enable,
            self._write_fifo_control,
            self._write_line_control,
            self._write_modem_control,
            lambda value: None,
            lambda value: None,
            self._write_scratch,
        )
        self.reset()

    def reset(self) -> None:
        """See BusDevice.reset. What the guest has printed is not lost."""
        self.flush()
        self._received.clear()
        self._interrupt_enable = 0
        self._fifo_control = 0
        self._line_control = 0
        self._modem_control = 0
        self._modem_status = _CONNECTED
        self._errors = 0
        """The bits of LSR that reading it clears."""
        self._scratch = 0
        self._divisor = _RESET_DIVISOR
        self._data = 0
        """What RBR holds without FIFOs."""
        self._is_thr_empty_pending = False
        self._is_timed_out = False
        self._update()
        self._ask_for_more()

    # The other end --------------------------------------------------------------------------------------

    def input(self, data: bytes) -> int:
        """Receive characters. Returns how many were taken; `on_room` is called when more will be."""
        room = 0 if self._modem_control & _LOOP else self._capacity() - len(self._received)
        taken = min(room, len(data))
        for character in data[:taken]:
            self._receive(character)
        self._refused = taken < len(data)
        self._update()
        return taken

    def await_room(self) -> None:
        """Have `on_room` called when there is room: `input` was refused by what this one goes on from."""
        self._refused = True

    def receive_break(self) -> bool:
        """Receive a break condition (section 8.3). Returns whether there was room for it."""
        if self._modem_control & _LOOP or len(self._received) >= self._capacity():
            return False
        self._receive(_BREAK << 8)
        self._update()
        return True

    def flush(self) -> None:
        """Hand over all that was printed."""
        if self._printed:
            printed = bytes(self._printed)
            self._printed.clear()
            self._output(printed)

    def _capacity(self) -> int:
        return FIFO_LENGTH if self._fifo_control & _FIFO else 1

    def _receive(self, character: int) -> None:
        """Put one into the receiver, or note that it is lost."""
        if len(self._received) < self._capacity():
            self._received.append(character)
        else:
            self._errors |= _OVERRUN
            if not self._fifo_control & _FIFO:
                self._received[0] = character
        if not self._fifo_control & _FIFO:
            self._data = character & 0xFF
        if len(self._received) == 1:
            self._errors |= self._received[0] >> 8
        self._note_activity()

    def _note_activity(self) -> None:
        """The receiver times out when nothing more happens for four characters' time (section 8.10)."""
        self._is_timed_out = False
        self._idle_since = self._clock.now()
        self._watch_receiver()

    def _watch_receiver(self) -> None:
        """Look again when the receiver may have timed out."""
        if not self._received or not self._fifo_control & _FIFO or self._is_timed_out:
            return
        if self._watch is None or not self._watch.is_pending:
            self._watch = self._clock.call_at(self._idle_since + self._timeout(), self._look_for_timeout)

    def _look_for_timeout(self) -> None:
        if self._received and self._fifo_control & _FIFO:
            self._is_timed_out |= self._idle_since + self._timeout() <= self._clock.now()
            self._watch_receiver()
            self._update()

    def _change_timeout(self) -> None:
        """The time that a character takes was changed."""
        if self._watch is not None:
            self._watch.cancel()
        self._watch_receiver()

    def _timeout(self) -> int:
        """Nanoseconds that four characters take."""
        control = self._line_control
        bits = 7 + (control & _WORD_LENGTH) + bool(control & _PARITY) + bool(control & _STOP_BITS)
        return 4 * bits * 16 * max(self._divisor, 1) * SECOND // CLOCK_FREQUENCY

    def _ask_for_more(self) -> None:
        if self._refused and not self._received and not self._modem_control & _LOOP:
            self._refused = False
            if self.on_room is not None:
                self.on_room()

    # Registers ------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """See BusDevice.read."""
        if size == 1:
            return self._readers[offset]() if offset < SIZE else 0
        return int.from_bytes([self.read(offset + position, 1) for position in range(size)], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """See BusDevice.write."""
        if size == 1:
            if offset < SIZE:
                self._writers[offset](value & 0xFF)
            return
        for position in range(min(size, SIZE - offset)):
            self._writers[offset + position](value >> 8 * position & 0xFF)

    def _read_data(self) -> int:
        if self._line_control & _DLAB:
            return self._divisor & 0xFF
        if self._received:
            character = self._received.popleft() & 0xFF
            if self._received:
                self._errors |= self._received[0] >> 8
            self._note_activity()
            self._update()
            if not self._received:
                self._ask_for_more()
            return character
        return 0 if self._fifo_control & _FIFO else self._data

    def _write_data(self, value: int) -> None:
        if self._line_control & _DLAB:
            self._divisor = self._divisor & 0xFF00 | value
            self._change_timeout()
            return
        if self._interrupt_enable:
            self._is_thr_empty_pending = False
            self._update()
        if self._modem_control & _LOOP:
            self._receive(value)
        else:
            self._print(value)
        self._is_thr_empty_pending = True
        if self._interrupt_enable:
            self._update()

    def _print(self, character: int) -> None:
        self._printed.append(character)
        if character == _NEWLINE or len(self._printed) >= _MOST_UNSEEN:
            self.flush()
        elif self._hand_over is None or not self._hand_over.is_pending:
            self._hand_over = self._clock.call_at(self._clock.now() + _LONGEST_UNSEEN, self.flush)

    def _read_interrupt_enable(self) -> int:
        return self._divisor >> 8 if self._line_control & _DLAB else self._interrupt_enable

    def _write_interrupt_enable(self, value: int) -> None:
        if self._line_control & _DLAB:
            self._divisor = self._divisor & 0xFF | value << 8
            self._change_timeout()
            return
        before, self._interrupt_enable = self._interrupt_enable, value & 0xF
        if (before ^ value) & InterruptEnable.TRANSMITTER_EMPTY:
            # Enabling it with an empty transmitter interrupts at once: drivers test for that.
            self._is_thr_empty_pending = bool(value & InterruptEnable.TRANSMITTER_EMPTY)
        self._update()

    def _read_interrupt_id(self) -> int:
        pending = self._pending()
        if pending is InterruptId.TRANSMITTER_EMPTY:
            self._is_thr_empty_pending = False
            self._update()
        return pending | (0xC0 if self._fifo_control & _FIFO else 0)

    def _write_fifo_control(self, value: int) -> None:
        if (value ^ self._fifo_control) & _FIFO:
            value |= int(FifoControl.RESET_RECEIVER | FifoControl.RESET_TRANSMITTER)
        if value & FifoControl.RESET_RECEIVER:
            self._received.clear()
            self._is_timed_out = False
        if value & FifoControl.RESET_TRANSMITTER:
            self._is_thr_empty_pending = True
        self._fifo_control = value & int(FifoControl.ENABLE | FifoControl.TRIGGER)
        self._update()
        self._ask_for_more()

    def _write_line_control(self, value: int) -> None:
        self._line_control = value
        self._change_timeout()

    def _write_modem_control(self, value: int) -> None:
        self._modem_control = value & 0x1F
        self._note_modem_lines()
        self._update()
        self._ask_for_more()

    def _write_scratch(self, value: int) -> None:
        self._scratch = value

    def _read_line_status(self) -> int:
        status = _EMPTY | self._errors
        if self._received:
            status |= _DATA_READY
            if self._fifo_control & _FIFO and max(self._received) > 0xFF:
                status |= _FIFO_ERROR
        if self._errors:
            self._errors = 0
            if self._received:
                self._received[0] &= 0xFF
            self._update()
        return status

    def _read_modem_status(self) -> int:
        status = self._modem_status
        if status & _DELTAS:
            self._modem_status &= ~_DELTAS
            self._update()
        return status

    def _note_modem_lines(self) -> None:
        """In loopback the modem's lines are the outputs of MCR (section 8.7)."""
        control, lines = self._modem_control, _CONNECTED
        if control & _LOOP:
            lines = (control & 1) << 5 | (control & 2) << 3 | (control & 0xC) << 4
        changed = (lines ^ self._modem_status) & 0xF0
        # RI alone tells of its end only.
        self._modem_status = lines | self._modem_status & _DELTAS | (changed & ~(lines & _RING)) >> 4

    # Interrupts -----------------------------------------------------------------------------------------

    def _pending(self) -> InterruptId:
        """The pending and enabled interrupt of the highest priority (table IV)."""
        enable = self._interrupt_enable
        if enable & 4 and self._errors & _ERRORS:
            return InterruptId.LINE_STATUS
        if enable & 1 and self._received:
            if self._is_timed_out:
                return InterruptId.CHARACTER_TIMEOUT
            trigger = _TRIGGER_LEVELS[self._fifo_control >> 6] if self._fifo_control & _FIFO else 1
            if len(self._received) >= trigger:
                return InterruptId.RECEIVED_DATA
        if enable & 2 and self._is_thr_empty_pending:
            return InterruptId.TRANSMITTER_EMPTY
        if enable & 8 and self._modem_status & _DELTAS:
            return InterruptId.MODEM_STATUS
        return InterruptId.NONE

    def _update(self) -> None:
        """Drive the wire; what is pending after something has happened is another edge."""
        is_pending = self._interrupt_enable != 0 and self._pending() is not InterruptId.NONE
        if is_pending:
            self._wire.set(False)
        self._wire.set(is_pending)

    # State ----------------------------------------------------------------------------------------------

    def save_state(self) -> State:
        """See BusDevice.save_state. What was printed is handed over first."""
        self.flush()
        return {
            "version": _VERSION,
            **{name: getattr(self, f"_{name}") for name, _ in _SAVED},
            "received": list(self._received),
            "is_thr_empty_pending": self._is_thr_empty_pending,
            "is_timed_out": self._is_timed_out,
            "idle_for": self._clock.now() - self._idle_since,
        }

    def load_state(self, state: State) -> None:
        """See BusDevice.load_state. Whoever has input for it tries again."""
        saved = SavedState(state, _VERSION, "the UART")
        registers = {f"_{name}": saved.number(name, bits) for name, bits in _SAVED}
        capacity = FIFO_LENGTH if registers["_fifo_control"] & _FIFO else 1
        received = saved.some_numbers("received", capacity, 16)
        flags = [saved.flag(name) for name in ("is_thr_empty_pending", "is_timed_out")]
        idle_for = saved.number("idle_for", 64)
        self.flush()
        for name, value in registers.items():
            setattr(self, name, value)
        self._received = deque(received)
        self._is_thr_empty_pending, self._is_timed_out = flags
        self._idle_since = self._clock.now() - idle_for
        self._change_timeout()
        self._update()
