"""The agent's channel: finding it, sending frames, and waiting where the host is slow or away."""

from anyvirt.agent.guest.state import NONE, Agent
from anyvirt.agent.protocol import HEADER_SIZE, Kind
from anyvirt.jit.system import system_call, text
from anyvirt.jit.texts import append, same
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
    u8,
    u16,
    u32,
    u64,
)

_HERE = -100  # AT_FDCWD
_DIRECTORY = 0o200000  # O_RDONLY | O_DIRECTORY
_OPEN_CHANNEL = 0o2004002  # O_RDWR | O_NONBLOCK | O_CLOEXEC
_SET_STATUS = 4  # F_SETFL
_NONBLOCKING = 0o4002  # O_RDWR | O_NONBLOCK
_SET_DESCRIPTOR = 2  # F_SETFD
_CLOSE_ON_EXECUTE = 1
_GET_TERMINAL, _SET_TERMINAL = 0x5401, 0x5402  # TCGETS, TCSETS
_TRY_AGAIN, _INTERRUPTED = -11, -4
_NO_ENTRY = 2  # ENOENT
_CAN_WRITE = 4  # POLLOUT
_PATIENCE = 20
"""Milliseconds between two looks at what is not there yet."""
_LOOKS = 500
_PAGE = 4096


def open_channel(agent: u64, name: u64) -> u64:
    """Open the channel called `name` (see protocol.Channel); an error number, 0 if it is open."""
    first = load8(name)
    if first == 47:  # a slash
        return _use(agent, system_call("openat", s64(_HERE), name, _OPEN_CHANNEL, 0))
    if first >= 48 and first <= 57:
        return _use(agent, s64(_number(name)))
    store64(agent + Agent.IS_PORT, u64(1))
    for _look in range(u64(_LOOKS)):
        error = _open_port(agent, name)
        if error != _NO_ENTRY:
            return error
        pause(agent, u64(_PATIENCE))
    return u64(_NO_ENTRY)


def _use(agent: u64, descriptor: s64) -> u64:
    if descriptor < 0:
        return u64(-descriptor)
    system_call("fcntl", descriptor, _SET_STATUS, _NONBLOCKING)
    system_call("fcntl", descriptor, _SET_DESCRIPTOR, _CLOSE_ON_EXECUTE)
    _make_raw(agent, descriptor)
    store64(agent + Agent.CHANNEL, u64(descriptor))
    return u64(0)


def _make_raw(agent: u64, descriptor: s64) -> None:
    """Take all processing out of a channel that is a terminal (cfmakeraw of termios(3))."""
    settings = load64(agent + Agent.SCRATCH)
    if system_call("ioctl", descriptor, _GET_TERMINAL, settings) == 0:
        store32(settings, load32(settings) & ~0o2753)
        store32(settings + 4, load32(settings + 4) & ~1)
        store32(settings + 8, load32(settings + 8) & ~0o460 | 0o60)
        store32(settings + 12, load32(settings + 12) & ~0o100113)
        system_call("ioctl", descriptor, _SET_TERMINAL, settings)


def _number(digits: u64) -> u64:
    value = u64(0)
    place = digits
    while load8(place) >= 48 and load8(place) <= 57:
        value = value * 10 + u64(load8(place)) - 48
        place += 1
    return value


def _open_port(agent: u64, name: u64) -> u64:
    """Look through /sys/class/virtio-ports for the port `name` and open its device."""
    ports = system_call("openat", s64(_HERE), text(b"/sys/class/virtio-ports"), _DIRECTORY, 0)
    if ports < 0:
        return u64(-ports)
    scratch = load64(agent + Agent.SCRATCH)
    entries, path, content = scratch, scratch + 2048, scratch + 3072
    error = u64(_NO_ENTRY)
    size = system_call("getdents64", ports, entries, 2048)
    while size > 0 and error == _NO_ENTRY:
        place = entries
        while place < entries + u64(size):
            entry = place + 19  # struct linux_dirent64: the name
            place += u64(load16(place + 16))
            if _is_port(entry, path, content, name):
                append(append(path, text(b"/dev/")), entry)
                error = _use(agent, system_call("openat", s64(_HERE), path, _OPEN_CHANNEL, 0))
                break
        size = system_call("getdents64", ports, entries, 2048)
    system_call("close", ports)
    return error


def _is_port(entry: u64, path: u64, content: u64, name: u64) -> bool:
    if load8(entry) == 46:  # a dot
        return False
    append(append(append(path, text(b"/sys/class/virtio-ports/")), entry), text(b"/name"))
    file = system_call("openat", s64(_HERE), path, 0, 0)
    if file < 0:
        return False
    size = system_call("read", file, content, 512)
    system_call("close", file)
    if size <= 0:
        return False
    store8(content + u64(size) - 1, u8(0))  # in place of the line's end
    return same(content, name)


def send(agent: u64, kind: u64, identity: u64, size: u64) -> None:
    """Send a frame whose `size` bytes of payload are at `payload(agent)`. Without a channel it is dropped."""
    channel = load64(agent + Agent.CHANNEL)
    if channel == NONE:
        return
    frame = load64(agent + Agent.OUTPUT)
    store32(frame, u32(size))
    store32(frame + 4, u32(identity))
    store16(frame + 8, u16(kind))
    store16(frame + 10, u16(0))
    place, end = frame, frame + HEADER_SIZE + size
    while place < end:
        written = system_call("write", channel, place, end - place)
        if written > 0:
            place += u64(written)
        elif written == _TRY_AGAIN:
            _wait_for_room(agent, channel)
        elif written != _INTERRUPTED:
            return


def payload(agent: u64) -> u64:
    """Where the payload of a frame that is to be sent is put."""
    return load64(agent + Agent.OUTPUT) + HEADER_SIZE


def done(agent: u64, identity: u64, error: u64, step: u64) -> None:
    """Answer a request: an error number, or 0, and what it was at then."""
    content = payload(agent)
    store32(content, u32(error))
    store32(content + 4, u32(step))
    send(agent, u64(Kind.DONE), identity, u64(8))


def _wait_for_room(agent: u64, channel: u64) -> None:
    """Wait until the channel takes more. While the host is away a port is ready at once, but not to write."""
    scratch = load64(agent + Agent.SCRATCH)
    store32(scratch, u32(channel))
    store16(scratch + 4, u16(_CAN_WRITE))
    store16(scratch + 6, u16(0))
    system_call("ppoll", scratch, 1, 0, 0, 8)
    if load16(scratch + 6) & _CAN_WRITE == 0:
        pause(agent, u64(_PATIENCE))


def pause(agent: u64, milliseconds: u64) -> None:
    """Do nothing for a while."""
    system_call("ppoll", 0, 0, time_span(agent, milliseconds), 0, 8)


def time_span(agent: u64, milliseconds: u64) -> u64:
    """A struct timespec, at the end of the scratch page."""
    span = load64(agent + Agent.SCRATCH) + _PAGE - 16
    store64(span, milliseconds // 1000)
    store64(span + 8, milliseconds % 1000 * 1_000_000)
    return span
