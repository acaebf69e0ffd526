"""The machine's console: what the guest has printed, and typing into it."""

from __future__ import annotations

import codecs
import re
import threading
from typing import TYPE_CHECKING

from anyvirt.devices.saved_state import SavedState
from anyvirt.errors import AnyvirtError, GuestTimeoutError
from anyvirt.machines.ending import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.devices.bus import State
    from anyvirt.devices.uart16550 import Uart16550
    from anyvirt.machines.machine import Machine

_SHOWN = 400
"""Characters of the end of the output in an error."""
_VERSION = 1
_INPUT = "console"
_LONGEST_CHARACTER = 4
"""Bytes."""
_KEPT = 16 << 20
"""Characters of the output that are kept at least; guests print without end."""


class Console:
    """The other end of the machine's serial line."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[str] = []
        self._length = 0
        self._matched = 0
        """How much of the text `expect` is done with."""
        self._typed = bytearray()
        self._uart: Uart16550 | None = None
        self._lock = threading.Lock()
        self.on_output: Callable[[bytes], object] | None = None
        """Called with what the guest prints, as it prints it."""
        self.is_quiet = False
        """Whether `on_output` is not called: what is printed has been printed before."""
        machine.inputs.receive(_INPUT, self._arrive)

    def connect(self, uart: Uart16550) -> None:
        """Type into a UART."""
        self._uart = uart
        uart.on_room = self._type

    def output(self, data: bytes) -> None:
        """The guest prints."""
        with self._lock:
            piece = self._decoder.decode(data)
            self._pieces.append(piece)
            self._length += len(piece)
            if self._length > 2 * _KEPT:
                self._forget_oldest()
        if self.on_output is not None and not self.is_quiet:
            self.on_output(data)
        self._machine.notice()

    @property
    def text(self) -> str:
        """What was printed, with what is no UTF-8 replaced; of very much the last 16 million characters."""
        with self._lock:
            return self._joined()

    def _joined(self) -> str:
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def _forget_oldest(self) -> None:
        self._pieces = [self._joined()[-_KEPT:]]
        self._matched = max(0, self._matched - (self._length - _KEPT))
        self._length = _KEPT

    def send(self, text: str | bytes) -> None:
        """Type; what the guest has no room for yet follows by and by. Any thread may."""
        self._machine.inputs.push(_INPUT, text.encode() if isinstance(text, str) else text)

    def _arrive(self, data: bytes) -> None:
        self._typed += data
        self._type()

    def _type(self) -> None:
        if self._typed and self._uart is not None:
            del self._typed[: self._uart.input(bytes(self._typed))]

    def save_state(self) -> State:
        """What was printed, what `expect` is done with, and what is typed and has not arrived."""
        with self._lock:
            return {
                "version": _VERSION,
                "text": self._joined(),
                "undecoded": self._decoder.getstate()[0],
                "matched": self._matched,
                "typed": bytes(self._typed),
            }

    def load_state(self, state: State) -> None:
        """Go on where another console was saved. Raises StateError and changes nothing if it does not fit."""
        saved = SavedState(state, _VERSION, "the console")
        text, typed, undecoded = (saved.value(name) for name in ("text", "typed", "undecoded"))
        matched = saved.number("matched", 64)
        if not isinstance(text, str) or not isinstance(typed, bytes) or not isinstance(undecoded, bytes):
            raise saved.misfit("text")
        with self._lock:
            self._pieces, self._length, self._matched = [text], len(text), min(matched, len(text))
            self._decoder.setstate((undecoded[:_LONGEST_CHARACTER], 0))
            self._typed = bytearray(typed)

    def await_room(self) -> None:
        """Type on when the UART, whose state was loaded, has room again."""
        if self._typed and self._uart is not None:
            self._uart.await_room()

    def expect(
        self, pattern: str | re.Pattern[str], *, timeout: float = 60, instructions: int | None = None
    ) -> re.Match[str]:
        """Run the machine until the guest prints what matches `pattern`, behind the last match.

        `timeout` is in seconds; with `instructions` it is a counted run instead. Raises GuestTimeoutError if
        it does not come in time, AnyvirtError if the machine ends before.
        """
        wanted = re.compile(pattern) if isinstance(pattern, str) else pattern
        found = self.find(wanted)
        if found is None:
            seconds = timeout if instructions is None else None
            ending = self._machine.run(
                seconds=seconds, instructions=instructions, until=lambda: self.find(wanted) is not None
            )
            found = self.find(wanted)
            if found is None:
                self._complain(wanted.pattern, ending.reason, timeout if instructions is None else None)
        assert found is not None
        self._matched = found.end()
        return found

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What matches behind the last match of `expect`, if it was printed already."""
        return pattern.search(self.text, self._matched)

    def _complain(self, pattern: str, reason: Reason, timeout: float | None) -> None:
        end = self.text[-_SHOWN:].strip() or "nothing"
        if reason is Reason.LIMIT:
            limit = "within the instructions given" if timeout is None else f"in {timeout:g} seconds"
            raise GuestTimeoutError(f"the machine did not print {pattern!r} {limit}; it printed: {end}")
        raise AnyvirtError(f"the machine's run ended ({reason}) before it printed {pattern!r}: {end}")
