"""The streams of commands: carrying bytes between their pipes or terminals and the channel, within windows.

And their ends: a command is over when it has been waited for and what it had written has been sent.
"""

from anyvirt.agent.guest.channel import payload, send
from anyvirt.agent.guest.state import NONE, Agent, Command, State, close, command_with
from anyvirt.agent.protocol import WINDOW, Kind, Stream
from anyvirt.jit.system import system_call
from anyvirt.typed import load8, load64, range, s64, store8, store32, store64, u32, u64

_CHUNK = 1 << 15
_TRY_AGAIN, _INTERRUPTED = -11, -4
_NO_WAIT = 1  # WNOHANG
_PIPE_CAPACITY = 1 << 16
"""Of a pipe (pipe(7)); a terminal holds no more."""


def forward(agent: u64, command: u64, stream: u64, limit: u64) -> u64:
    """Send what there is of an output stream, up to `limit` bytes and its credit; how many bytes it was."""
    place = command + Command.OUTPUT + (stream - Stream.OUTPUT) * 8
    credit = command + Command.OUTPUT_CREDIT + (stream - Stream.OUTPUT) * 8
    if load64(place) == NONE or load64(credit) == 0 or limit == 0:
        return u64(0)
    granted = min(load64(credit), limit)
    count = system_call("read", load64(place), payload(agent), min(granted, u64(_CHUNK)))
    if count in (_TRY_AGAIN, _INTERRUPTED):
        return u64(0)
    if count <= 0:  # the end; of a terminal, EIO
        end_output(agent, command, stream)
        return u64(0)
    store64(credit, load64(credit) - u64(count))
    send(agent, _output_kind(stream), load64(command + Command.IDENTITY), u64(count))
    return u64(count)


def end_output(agent: u64, command: u64, stream: u64) -> None:
    """Close an output stream that is open, and say so."""
    place = command + Command.OUTPUT + (stream - Stream.OUTPUT) * 8
    if load64(place) != NONE:
        close(place)
        send(agent, _output_kind(stream), load64(command + Command.IDENTITY), u64(0))


def _output_kind(stream: u64) -> u64:
    return u64(Kind.OUTPUT) if stream == Stream.OUTPUT else u64(Kind.ERRORS)


def take_input(agent: u64, command: u64, source: u64, size: u64) -> None:
    """Keep `size` bytes of input, none for its end; a host that sends more than its window loses the rest."""
    if size == 0:
        store64(command + Command.INPUT_ENDS, u64(1))
    fill = load64(command + Command.FILL)
    kept = min(size, WINDOW - fill)
    _copy(load64(command + Command.BUFFER) + fill, source, kept)
    store64(command + Command.FILL, fill + kept)
    feed(agent, command)


def feed(agent: u64, command: u64) -> None:
    """Write what the command takes of its input and grant the host as much again."""
    fill = load64(command + Command.FILL)
    buffer = load64(command + Command.BUFFER)
    written = u64(0)
    if fill != 0:
        written = _write(command, buffer, fill)
    if written != 0:
        _copy(buffer, buffer + written, fill - written)
        store64(command + Command.FILL, fill - written)
        content = payload(agent)
        store32(content, u32(Stream.INPUT))
        store32(content + 4, u32(written))
        send(agent, u64(Kind.CREDIT), load64(command + Command.IDENTITY), u64(8))
    if load64(command + Command.FILL) == 0 and load64(command + Command.INPUT_ENDS) != 0:
        close(command + Command.INPUT)


def _write(command: u64, buffer: u64, fill: u64) -> u64:
    """How much of the input is done with; all of it when nobody will read it any more."""
    descriptor = load64(command + Command.INPUT)
    if descriptor == NONE:
        return fill
    count = system_call("write", descriptor, buffer, fill)
    if count >= 0:
        return u64(count)
    if count in (_TRY_AGAIN, _INTERRUPTED):
        return u64(0)
    close(command + Command.INPUT)
    return fill


def _copy(target: u64, source: u64, size: u64) -> None:
    """Copy bytes from their beginning, so that they may be moved towards lower addresses."""
    words = size // 8
    for index in range(words):
        store64(target + index * 8, load64(source + index * 8))
    for index in range(words * 8, size):
        store8(target + index, load8(source + index))


def grant(command: u64, stream: u64, count: u64) -> None:
    """The host takes `count` bytes more of an output stream."""
    place = command + Command.OUTPUT_CREDIT + (stream - Stream.OUTPUT) * 8
    store64(place, load64(place) + count)


def reap(agent: u64) -> None:
    """Wait for all processes that have ended, commands and orphans."""
    status = load64(agent + Agent.SCRATCH)
    usage = status + 64
    while True:
        process = system_call("wait4", s64(-1), status, _NO_WAIT, usage)
        if process <= 0:
            return
        command = command_with(agent, u64(Command.PROCESS), u64(process))
        if command != 0:
            _note_end(command, status, usage)


def _note_end(command: u64, status: u64, usage: u64) -> None:
    """Keep what wait4(2) tells: the status and, of struct rusage, times and the peak in KiB."""
    store64(command + Command.STATE, u64(State.ENDED))
    store64(command + Command.STATUS, load64(status) & 0xFFFF_FFFF)
    store64(command + Command.USER_TIME, load64(usage) * 1_000_000 + load64(usage + 8))
    store64(command + Command.SYSTEM_TIME, load64(usage + 16) * 1_000_000 + load64(usage + 24))
    store64(command + Command.PEAK_MEMORY, load64(usage + 32) * 1024)
    store64(command + Command.OUTPUT_LEFT, u64(_PIPE_CAPACITY))
    store64(command + Command.ERRORS_LEFT, u64(_PIPE_CAPACITY))


def settle(agent: u64, command: u64) -> bool:
    """Send what an ended command has left and then its status; whether that is done.

    Otherwise the host has to grant more first. What others who hold its streams write from then on is lost.
    """
    for stream in range(u64(Stream.OUTPUT), u64(Stream.ERRORS + 1)):
        if not _drained(agent, command, stream):
            return False
    end_output(agent, command, u64(Stream.OUTPUT))
    end_output(agent, command, u64(Stream.ERRORS))
    close(command + Command.INPUT)
    content = payload(agent)
    store64(content, load64(command + Command.STATUS))
    store64(content + 8, load64(command + Command.USER_TIME))
    store64(content + 16, load64(command + Command.SYSTEM_TIME))
    store64(content + 24, load64(command + Command.PEAK_MEMORY))
    send(agent, u64(Kind.ENDED), load64(command + Command.IDENTITY), u64(32))
    release(command)
    return True


def _drained(agent: u64, command: u64, stream: u64) -> bool:
    left = command + Command.OUTPUT_LEFT + (stream - Stream.OUTPUT) * 8
    while True:
        if load64(command + Command.OUTPUT + (stream - Stream.OUTPUT) * 8) == NONE or load64(left) == 0:
            return True
        if load64(command + Command.OUTPUT_CREDIT + (stream - Stream.OUTPUT) * 8) == 0:
            return False
        count = forward(agent, command, stream, load64(left))
        if count == 0:
            return True
        store64(left, load64(left) - count)


def release(command: u64) -> None:
    """Give back what a command has: its streams, its memory, its place."""
    close(command + Command.INPUT)
    close(command + Command.OUTPUT)
    close(command + Command.ERRORS)
    if load64(command + Command.BUFFER) != 0:
        system_call("munmap", load64(command + Command.BUFFER), WINDOW)
        store64(command + Command.BUFFER, u64(0))
    store64(command + Command.STATE, u64(State.FREE))
