"""The monitor on a terminal, or fed by a script: reading lines, completing them, Ctrl-C, and the console."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from anyvirt.errors import AnyvirtError
from anyvirt.machines.debugging.commands.table import Completion, commands, find_command
from anyvirt.machines.debugging.monitor import CONTROLS, FLOATS, INTEGERS, all_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import FrameType

    from anyvirt.machines.debugging.monitor import Monitor

PROMPT = "(anyvirt) "
_DETACH = 0x1D
"""Ctrl-]."""
_HISTORY_LENGTH = 1000
_CHUNK = 4096
_DELIMITERS = " \t\n,()+-*/&|=<>!~^%"


class Shell:
    """A monitor and its user."""

    def __init__(self, monitor: Monitor, *, history: Path | None = None) -> None:
        """`history` is a file with the lines of former sessions."""
        self._monitor = monitor
        self._history = history
        self._last = ""
        self._is_line_begun = False
        monitor.show = self._show
        monitor.machine.console.on_output = self._printed
        if sys.stdin.isatty() and sys.stdout.isatty():
            monitor.attach = self._attach

    def do(self, lines: Iterable[str]) -> None:
        """Do commands until one is `quit`. Raises AnyvirtError for the first that is wrong."""
        with self._interruptible():
            for line in lines:
                if self._monitor.is_done:
                    return
                self._show(self._monitor.execute(line))

    def interact(self) -> None:
        """Read commands until `quit` or the end of what there is to read."""
        is_terminal = sys.stdin.isatty()
        if is_terminal:
            self._prepare_terminal()
            self._show(self._monitor.where(self._monitor.hart))
        while not self._monitor.is_done:
            try:
                line = input(PROMPT if is_terminal else "")
            except EOFError:
                break
            except KeyboardInterrupt:
                print()
                continue
            self._do_line(line)

    def _do_line(self, line: str) -> None:
        """Do a command; an empty line does the last one again, if that is of the kind."""
        try:
            if line.strip():
                self._last = line if _repeats(line) else ""
            with self._interruptible():
                self._show(self._monitor.execute(line if line.strip() else self._last))
        except AnyvirtError as error:
            self._show(str(error))
        except KeyboardInterrupt:
            self._show("interrupted")

    # Output ---------------------------------------------------------------------------------------------

    def _show(self, text: str) -> None:
        if text:
            if self._is_line_begun:
                print()
                self._is_line_begun = False
            print(text, flush=True)

    def _printed(self, data: bytes) -> None:
        """What the guest prints, in between."""
        if self._monitor.is_console_shown and data:
            sys.stdout.flush()
            with suppress(OSError):
                os.write(sys.stdout.fileno(), data)
            self._is_line_begun = not data.endswith(b"\n")

    # Ctrl-C ---------------------------------------------------------------------------------------------

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let Ctrl-C stop the machine, or the command if the machine stands."""

        def interrupted(_number: int, _frame: FrameType | None) -> None:
            if not self._monitor.interrupt():
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # The console ----------------------------------------------------------------------------------------

    def _attach(self) -> str:
        """Run with the terminal as the guest's console, until Ctrl-] or a stop."""
        import termios
        import tty

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
        wake, waker = os.pipe()
        keys = threading.Thread(target=self._pass_keys, args=(terminal, wake), daemon=True)
        # This throws away what has been typed, so nobody is asked to type before.
        tty.setraw(terminal)
        keys.start()
        try:
            self._show("Ctrl-] comes back\r")
            shown = self._monitor.run()
        finally:
            os.close(waker)
            keys.join()
            os.close(wake)
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        return shown

    def _pass_keys(self, terminal: int, wake: int) -> None:
        """Type to the guest what is typed here, until `wake` ends."""
        machine = self._monitor.machine
        poll = select.poll()
        poll.register(terminal, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while not any(fd == wake for fd, _ in poll.poll()):
            keys = os.read(terminal, _CHUNK)
            typed, escape, _ = keys.partition(bytes((_DETACH,)))
            if typed:
                machine.console.send(typed)
            if escape or not keys:
                machine.stop()
                return

    # Editing --------------------------------------------------------------------------------------------

    def _prepare_terminal(self) -> None:
        """History and completion, where Python has readline."""
        try:
            import readline
        except ImportError:
            return
        import atexit

        readline.set_completer(self._complete)
        readline.set_completer_delims(_DELIMITERS)
        readline.parse_and_bind("tab: complete")
        if self._history is not None:
            path = str(self._history)
            with suppress(OSError):
                self._history.parent.mkdir(parents=True, exist_ok=True)
                readline.read_history_file(path)
            readline.set_history_length(_HISTORY_LENGTH)
            atexit.register(_quietly_write, path)

    def _complete(self, text: str, number: int) -> str | None:
        """The completion of a number, as readline asks for one after the other."""
        import readline

        if number == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()]
            self._found = sorted(set(completions(self._monitor, before, text)))
        return self._found[number] if number < len(self._found) else None


def completions(monitor: Monitor, before: str, text: str) -> Iterable[str]:
    """What a word that begins with `text` may become, behind what is `before` it on the line."""
    words = before.split()
    if not words:
        return [f"{name} " for name in commands() if name.startswith(text)]
    try:
        kind = find_command(words[0].partition("/")[0]).completion
    except AnyvirtError:
        return []
    if kind is Completion.EXPRESSION:
        return all_names(monitor, text)
    if kind is Completion.FILE:
        return _files(text)
    words_of: dict[Completion, Iterable[str]] = {
        Completion.NOTHING: (),
        Completion.REGISTER: (*INTEGERS, *FLOATS, *CONTROLS, "pc", "priv"),
        Completion.DEVICE: monitor.machine.board.devices,
        Completion.COMMAND: commands(),
    }
    return [name for name in words_of[kind] if name.startswith(text)]


def _files(beginning: str) -> list[str]:
    from glob import escape, glob

    return [path + "/" if os.path.isdir(path) else path for path in glob(escape(beginning) + "*")]


def _repeats(line: str) -> bool:
    try:
        return find_command(line.split(maxsplit=1)[0].partition("/")[0]).repeats
    except AnyvirtError:
        return False


def _quietly_write(path: str) -> None:
    import readline

    with suppress(OSError):
        readline.write_history_file(path)
