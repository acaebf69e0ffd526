"""The program: it carries out its plan, then serves its channel and its commands until it is shut down."""

from anyvirt.agent.guest.channel import time_span
from anyvirt.agent.guest.requests import perform
from anyvirt.agent.guest.shutdown import shut_down
from anyvirt.agent.guest.state import (
    COMMAND_SIZE,
    INPUT_SIZE,
    NONE,
    Agent,
    Command,
    State,
    allocate,
    new_agent,
)
from anyvirt.agent.guest.streams import feed, forward, reap, settle
from anyvirt.agent.protocol import COMMAND_LIMIT, HEADER_SIZE, PAYLOAD_LIMIT, Shutdown, Stream
from anyvirt.jit.system import system_call, text
from anyvirt.jit.texts import append, append_number
from anyvirt.typed import (
    load8,
    load16,
    load32,
    load64,
    range,
    s64,
    store8,
    store16,
    store32,
    store64,
    u16,
    u32,
    u64,
)

_HERE = -100  # AT_FDCWD
_READ_ONLY = 0o2000000  # O_RDONLY | O_CLOEXEC
_DIRECTORY = 0o200000  # O_RDONLY | O_DIRECTORY
_BLOCK = 0  # SIG_BLOCK
_CHILD_AND_PIPE = 1 << 16 | 1 << 12  # SIGCHLD, SIGPIPE
_CHILD = 1 << 16
_SIGNAL_FILE_FLAGS = 0o2004000  # SFD_NONBLOCK | SFD_CLOEXEC
_CAN_READ, _CAN_WRITE = 1, 4  # POLLIN, POLLOUT
_TRY_AGAIN, _INTERRUPTED = -11, -4
_AWAY = 50
"""Milliseconds until a host that is away is looked for again."""
_ALL_STREAMS = 3
_TOO_LARGE = 27  # EFBIG
_PLAN_LIMIT = 1 << 20
_GRACE = 2000


def main(count: u64, arguments: u64) -> u64:
    """The agent, given the option --plan=PATH or nothing. Other words are the kernel's, not for it."""
    _open_standard_streams()
    agent = new_agent()
    if system_call("getpid") == 1:
        store64(agent + Agent.IS_FIRST, u64(1))
    _watch_children(agent)
    plan = text(b"/anyvirt/plan")
    for index in range(u64(1), count):
        word = load64(arguments + index * 8)
        if _is_plan_option(word):
            plan = word + 7
    _carry_out_plan(agent, plan)
    _serve(agent)
    return u64(0)


def _is_plan_option(word: u64) -> bool:
    option = text(b"--plan=")
    place = u64(0)
    while load8(option + place) != 0:
        if load8(option + place) != load8(word + place):
            return False
        place += 1
    return True


def _open_standard_streams() -> None:
    """Descriptors 0 to 2 are taken, by whatever there is, so that what is opened later gets others."""
    descriptor = system_call("openat", s64(_HERE), text(b"/"), _DIRECTORY, 0)
    while descriptor >= 0 and descriptor < 3:
        descriptor = system_call("openat", s64(_HERE), text(b"/"), _DIRECTORY, 0)
    system_call("close", descriptor)


def _watch_children(agent: u64) -> None:
    """Hear of ended children from a descriptor, and of broken pipes from write(2) alone."""
    mask = load64(agent + Agent.SCRATCH)
    store64(mask, u64(_CHILD_AND_PIPE))
    system_call("rt_sigprocmask", _BLOCK, mask, 0, 8)
    store64(mask, u64(_CHILD))
    store64(agent + Agent.SIGNALS, u64(system_call("signalfd4", s64(-1), mask, 8, _SIGNAL_FILE_FLAGS)))


# The plan ------------------------------------------------------------------------------------------------


def _carry_out_plan(agent: u64, path: u64) -> None:
    """Perform the requests in the file, up to the first that fails. None is no mistake of the guest's."""
    buffer = allocate(u64(_PLAN_LIMIT))
    size = _read_file(path, buffer)
    if size < 0:
        _complain(agent, u64(0), u64(-size))
        return
    place, end = buffer, buffer + u64(size)
    while end - place >= HEADER_SIZE:
        length, identity, kind = u64(load32(place)), u64(load32(place + 4)), u64(load16(place + 8))
        if length > end - place - HEADER_SIZE:
            break
        store64(agent + Agent.PLAN_KIND, kind)
        error = perform(agent, kind, identity, place + HEADER_SIZE, length)
        if error != 0:
            store64(agent + Agent.PLAN_ERROR, error)
            _complain(agent, load64(agent + Agent.PLAN_STEPS) + 1, error)
            return
        store64(agent + Agent.PLAN_STEPS, load64(agent + Agent.PLAN_STEPS) + 1)
        place += HEADER_SIZE + length


def _read_file(path: u64, buffer: u64) -> s64:
    """Read a whole file; its size, or an error number below 0."""
    file = system_call("openat", s64(_HERE), path, _READ_ONLY, 0)
    if file < 0:
        return file
    size = u64(0)
    while True:
        count = system_call("read", file, buffer + size, _PLAN_LIMIT - size)
        if count <= 0:
            break
        size += u64(count)
    system_call("close", file)
    if count < 0:
        return count
    return s64(size) if size < _PLAN_LIMIT else s64(-_TOO_LARGE)


def _complain(agent: u64, step: u64, error: u64) -> None:
    """Say on the console that the plan could not be carried out: nobody else may ever hear of it."""
    line = load64(agent + Agent.SCRATCH)
    end = append(line, text(b"anyvirt: step "))
    end = append(append_number(end, step), text(b" of the plan failed with error "))
    end = append(append_number(end, error), text(b"\n"))
    system_call("write", 2, line, end - line)


# The channel and the commands ----------------------------------------------------------------------------


def _serve(agent: u64) -> None:
    """Wait for what happens and act on it, for ever."""
    poll = load64(agent + Agent.POLL)
    while _has_purpose(agent):
        entries = _fill_poll(agent, poll)
        timeout = u64(0)
        if load64(agent + Agent.IS_AWAY) != 0:
            timeout = time_span(agent, u64(_AWAY))
            store64(agent + Agent.IS_AWAY, u64(0))
        ready = system_call("ppoll", poll, entries, timeout, 0, 8)
        if ready > 0:
            if _happened(poll + 8) != 0:
                system_call("read", load64(agent + Agent.SIGNALS), load64(agent + Agent.SCRATCH), 128)
                reap(agent)
            _serve_commands(agent, poll)
            if _happened(poll) != 0:
                _receive(agent)
            _settle_ended(agent)
    shut_down(agent, u64(Shutdown.POWER_OFF), u64(_GRACE))


def _has_purpose(agent: u64) -> bool:
    """Without a channel there is one only as long as a command runs."""
    if load64(agent + Agent.CHANNEL) != NONE:
        return True
    for number in range(u64(COMMAND_LIMIT)):
        if load64(load64(agent + Agent.COMMANDS) + number * COMMAND_SIZE + Command.STATE) != State.FREE:
            return True
    return False


def _fill_poll(agent: u64, poll: u64) -> u64:
    """What is waited for: the channel, children, and three descriptors of each command; how many entries."""
    channel = load64(agent + Agent.CHANNEL)
    if load64(agent + Agent.IS_AWAY) != 0:
        channel = NONE
    _entry(poll, channel, u64(_CAN_READ))
    _entry(poll + 8, load64(agent + Agent.SIGNALS), u64(_CAN_READ))
    for number in range(u64(COMMAND_LIMIT)):
        command = load64(agent + Agent.COMMANDS) + number * COMMAND_SIZE
        entry = poll + 16 + number * _ALL_STREAMS * 8
        if load64(command + Command.STATE) == State.RUNNING:
            fed = load64(command + Command.INPUT) if load64(command + Command.FILL) != 0 else NONE
            out = load64(command + Command.OUTPUT) if load64(command + Command.OUTPUT_CREDIT) != 0 else NONE
            errors = (
                load64(command + Command.ERRORS) if load64(command + Command.ERRORS_CREDIT) != 0 else NONE
            )
            _entry(entry, fed, u64(_CAN_WRITE))
            _entry(entry + 8, out, u64(_CAN_READ))
            _entry(entry + 16, errors, u64(_CAN_READ))
        else:
            for stream in range(u64(_ALL_STREAMS)):
                _entry(entry + stream * 8, NONE, u64(0))
    return u64(2 + COMMAND_LIMIT * _ALL_STREAMS)


def _entry(entry: u64, descriptor: u64, events: u64) -> None:
    """A struct pollfd; one with a negative descriptor is passed over."""
    store32(entry, u32(descriptor))
    store16(entry + 4, u16(events))
    store16(entry + 6, u16(0))


def _happened(entry: u64) -> u64:
    return u64(load16(entry + 6))


def _serve_commands(agent: u64, poll: u64) -> None:
    for number in range(u64(COMMAND_LIMIT)):
        command = load64(agent + Agent.COMMANDS) + number * COMMAND_SIZE
        entry = poll + 16 + number * _ALL_STREAMS * 8
        if _happened(entry) != 0:
            feed(agent, command)
        for stream in range(u64(Stream.OUTPUT), u64(Stream.ERRORS + 1)):
            if _happened(entry + stream * 8) != 0 and load64(command + Command.STATE) == State.RUNNING:
                forward(agent, command, stream, u64(PAYLOAD_LIMIT))


def _settle_ended(agent: u64) -> None:
    """Report the commands that have ended; with the machine's main one, the machine ends."""
    for number in range(u64(COMMAND_LIMIT)):
        command = load64(agent + Agent.COMMANDS) + number * COMMAND_SIZE
        is_main = load64(command + Command.IS_MAIN) != 0
        if load64(command + Command.STATE) == State.ENDED and settle(agent, command) and is_main:
            shut_down(agent, u64(Shutdown.POWER_OFF), u64(_GRACE))


def _receive(agent: u64) -> None:
    """Read what the channel has and perform the requests that are complete."""
    buffer, fill = load64(agent + Agent.INPUT), load64(agent + Agent.FILL)
    count = system_call("read", load64(agent + Agent.CHANNEL), buffer + fill, INPUT_SIZE - fill)
    if count in (_TRY_AGAIN, _INTERRUPTED):
        return
    if count <= 0:
        _lose_host(agent)
        return
    end = buffer + fill + u64(count)
    place = buffer
    while end - place >= HEADER_SIZE:
        size = u64(load32(place))
        if size > PAYLOAD_LIMIT:
            _lose_host(agent)
            return
        if end - place < HEADER_SIZE + size:
            break
        perform(agent, u64(load16(place + 8)), u64(load32(place + 4)), place + HEADER_SIZE, size)
        place += HEADER_SIZE + size
    for offset in range(end - place):
        store8(buffer + offset, load8(place + offset))
    store64(agent + Agent.FILL, end - place)


def _lose_host(agent: u64) -> None:
    """The host is gone, or what it sends makes no sense. To a port it may come back; all else has ended."""
    store64(agent + Agent.FILL, u64(0))
    store64(agent + Agent.IS_AWAY, u64(1))
    if load64(agent + Agent.IS_PORT) == 0:
        shut_down(agent, u64(Shutdown.POWER_OFF), u64(_GRACE))
