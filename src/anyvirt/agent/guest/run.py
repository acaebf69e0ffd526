"""Running a command: its streams, its process, and what that does before it executes the command."""

from enum import IntEnum

from anyvirt.agent.guest.channel import done, payload, send
from anyvirt.agent.guest.parsing import count_texts, text_behind
from anyvirt.agent.guest.state import NONE, Agent, Command, State, allocate, free_command
from anyvirt.agent.guest.streams import release
from anyvirt.agent.protocol import RUN_HEAD_SIZE, WINDOW, Kind, RunFlag, Step
from anyvirt.jit.system import system_call, text
from anyvirt.jit.texts import append, length
from anyvirt.typed import load8, load32, load64, range, s64, store8, store32, store64, u32, u64

_HERE = -100  # AT_FDCWD
_OPEN_TERMINAL = 0o2004402  # O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC
_OPEN_PEER = 0o2000402  # O_RDWR | O_NOCTTY | O_CLOEXEC
_LOCK_TERMINAL, _PEER, _WINDOW_SIZE, _CONTROL = 0x40045431, 0x5441, 0x5414, 0x540E
"""TIOCSPTLCK, TIOCGPTPEER, TIOCSWINSZ, TIOCSCTTY"""
_CLOSE_ON_EXECUTE = 0o2000000
_DUPLICATE = 1030  # F_DUPFD_CLOEXEC
_SET_STATUS = 4  # F_SETFL
_NONBLOCKING = 0o4000
_FORK = 17  # SIGCHLD: with it alone, clone is fork
_SET_MASK = 2  # SIG_SETMASK
_FILE_MASK = 0o22
_INVALID, _TRY_AGAIN, _NO_ENTRY, _NO_ACCESS, _NO_DIRECTORY = 22, 11, 2, 13, 20
_NOT_FOUND = 127
_PATH_LIMIT = 4096


class Order(IntEnum):
    """Places of what the new process needs, behind one another in memory of its own."""

    REQUEST = 0
    WORDS = 8
    VARIABLES = 16
    INPUT = 24
    OUTPUT = 32
    ERRORS = 40
    """The command's ends of its streams."""
    REPORT = 48
    """Where a failure is written; it is closed when the command is executed."""
    DIRECTORY = 56
    CANDIDATE = 64
    """Room for the path that is tried."""
    POINTERS = 64 + 2 * _PATH_LIMIT


def run(agent: u64, identity: u64, request: u64, size: u64) -> u64:
    """Answer a request to run a command (see protocol.Run); an error number, or 0."""
    if not _is_complete(request, size):
        return _refuse(agent, identity, u64(_INVALID), u64(Step.REQUEST))
    command = free_command(agent)
    if command == 0:
        return _refuse(agent, identity, u64(_TRY_AGAIN), u64(Step.RESOURCES))
    room = Order.POINTERS + (u64(load32(request + 16)) + u64(load32(request + 20)) + 2) * 8
    order = allocate(room)
    _place_pointers(order, request)
    error, step = _start(agent, command, order, identity)
    system_call("munmap", order, room)
    if error != 0:
        release(command)
        return _refuse(agent, identity, error, step)
    store32(payload(agent), u32(load64(command + Command.PROCESS)))
    send(agent, u64(Kind.STARTED), identity, u64(4))
    return u64(0)


def _refuse(agent: u64, identity: u64, error: u64, step: u64) -> u64:
    done(agent, identity, error, step)
    return error


def _is_complete(request: u64, size: u64) -> bool:
    """Whether all that the request counts is in it."""
    if size < RUN_HEAD_SIZE:
        return False
    words = u64(load32(request + 16))
    texts = request + RUN_HEAD_SIZE + u64(load32(request + 12)) * 4
    if words == 0 or texts >= request + size:
        return False
    return count_texts(texts, request + size) == 1 + words + u64(load32(request + 20))


def _place_pointers(order: u64, request: u64) -> None:
    """The arrays of pointers that execve(2) wants, each ended by 0."""
    place = order + Order.POINTERS
    directory = request + RUN_HEAD_SIZE + u64(load32(request + 12)) * 4
    word = text_behind(directory)
    store64(order + Order.REQUEST, request)
    store64(order + Order.DIRECTORY, directory)
    store64(order + Order.WORDS, place)
    for _ in range(u64(load32(request + 16))):
        store64(place, word)
        word = text_behind(word)
        place += 8
    place += 8
    store64(order + Order.VARIABLES, place)
    for _ in range(u64(load32(request + 20))):
        store64(place, word)
        word = text_behind(word)
        place += 8


def _start(agent: u64, command: u64, order: u64, identity: u64) -> tuple[u64, u64]:
    """Make the streams and the process; an error number and what it was at, or 0."""
    flags = load32(load64(order + Order.REQUEST))
    store64(command + Command.INPUT, NONE)
    store64(command + Command.OUTPUT, NONE)
    store64(command + Command.ERRORS, NONE)
    store64(command + Command.FILL, u64(0))
    store64(command + Command.INPUT_ENDS, u64(0))
    store64(command + Command.BUFFER, allocate(u64(WINDOW)))
    store64(command + Command.IDENTITY, identity)
    store64(command + Command.OUTPUT_CREDIT, u64(WINDOW))
    store64(command + Command.ERRORS_CREDIT, u64(WINDOW))
    store64(command + Command.IS_MAIN, u64(1) if flags & RunFlag.MAIN != 0 else u64(0))
    step = u64(Step.RESOURCES)
    if flags & RunFlag.CONSOLE != 0:
        error = _use_console(order)
    elif flags & RunFlag.TERMINAL != 0:
        step = u64(Step.TERMINAL)
        error = _open_terminal(agent, command, order)
    else:
        error = _open_pipes(agent, command, order)
    if error == 0:
        error, step = _fork(agent, command, order)
    if flags & RunFlag.CONSOLE == 0:
        _close_ends(order)
    return error, step


def _use_console(order: u64) -> u64:
    for stream in range(u64(0), u64(3)):
        store64(order + Order.INPUT + stream * 8, stream)
    return u64(0)


def _open_terminal(agent: u64, command: u64, order: u64) -> u64:
    """A pseudo-terminal of the size and owner that the request wants (ioctl_tty(2), pts(4))."""
    for stream in range(u64(0), u64(3)):
        store64(order + Order.INPUT + stream * 8, NONE)
    request = load64(order + Order.REQUEST)
    master = system_call("openat", s64(_HERE), text(b"/dev/ptmx"), _OPEN_TERMINAL, 0)
    if master < 0:
        return u64(-master)
    store64(command + Command.OUTPUT, u64(master))
    scratch = load64(agent + Agent.SCRATCH)
    store64(scratch, u64(0))
    system_call("ioctl", master, _LOCK_TERMINAL, scratch)
    peer = system_call("ioctl", master, _PEER, _OPEN_PEER)
    if peer < 0:
        return u64(-peer)
    for stream in range(u64(0), u64(3)):
        store64(order + Order.INPUT + stream * 8, u64(peer))
    store64(scratch, u64(load32(request + 24)))
    system_call("ioctl", master, _WINDOW_SIZE, scratch)
    system_call("fchown", peer, u64(load32(request + 4)), s64(-1))
    twin = system_call("fcntl", master, _DUPLICATE, 0)
    if twin < 0:
        return u64(-twin)
    store64(command + Command.INPUT, u64(twin))
    return u64(0)


def _open_pipes(agent: u64, command: u64, order: u64) -> u64:
    """Three pipes; the agent's ends do not block."""
    scratch = load64(agent + Agent.SCRATCH)
    for stream in range(u64(0), u64(3)):
        store64(order + Order.INPUT + stream * 8, NONE)
    for stream in range(u64(0), u64(3)):
        result = system_call("pipe2", scratch, _CLOSE_ON_EXECUTE)
        if result < 0:
            return u64(-result)
        reader, writer = u64(load32(scratch)), u64(load32(scratch + 4))
        ours = writer if stream == 0 else reader
        store64(command + Command.INPUT + stream * 8, ours)
        store64(order + Order.INPUT + stream * 8, reader if stream == 0 else writer)
        system_call("fcntl", ours, _SET_STATUS, _NONBLOCKING)
    return u64(0)


def _close_ends(order: u64) -> None:
    """Close the command's ends in the agent; a terminal's is there three times."""
    before = NONE
    for stream in range(u64(0), u64(3)):
        end = load64(order + Order.INPUT + stream * 8)
        if end not in (NONE, before):
            system_call("close", end)
        before = end


def _fork(agent: u64, command: u64, order: u64) -> tuple[u64, u64]:
    """Start the process and wait until it has executed the command or says why it could not."""
    scratch = load64(agent + Agent.SCRATCH)
    result = system_call("pipe2", scratch, _CLOSE_ON_EXECUTE)
    if result < 0:
        return u64(-result), u64(Step.RESOURCES)
    report, writer = u64(load32(scratch)), u64(load32(scratch + 4))
    store64(order + Order.REPORT, writer)
    process = system_call("clone", _FORK, 0, 0, 0, 0)
    if process == 0:
        _become(agent, order)
    system_call("close", writer)
    if process < 0:
        system_call("close", report)
        return u64(-process), u64(Step.RESOURCES)
    store64(command + Command.PROCESS, u64(process))
    count = system_call("read", report, scratch, 8)
    while count == -4:  # EINTR
        count = system_call("read", report, scratch, 8)
    system_call("close", report)
    if count == 8:
        system_call("wait4", process, scratch + 16, 0, 0)
        return u64(load32(scratch)), u64(load32(scratch + 4))
    store64(command + Command.STATE, u64(State.RUNNING))
    return u64(0), u64(0)


def _become(agent: u64, order: u64) -> None:
    """In the new process: set up what the request wants and execute the command. Does not return."""
    request = load64(order + Order.REQUEST)
    _expect(order, system_call("setsid"), u64(Step.SESSION))
    flags = load32(request)
    descriptor = load64(order + Order.INPUT)
    if flags & RunFlag.TERMINAL != 0:
        _expect(order, system_call("ioctl", descriptor, _CONTROL, 0), u64(Step.TERMINAL))
    elif flags & RunFlag.CONSOLE != 0:
        system_call("ioctl", descriptor, _CONTROL, 1)
    if flags & RunFlag.CONSOLE == 0:
        for stream in range(u64(0), u64(3)):
            end = load64(order + Order.INPUT + stream * 8)
            _expect(order, system_call("dup3", end, stream, 0), u64(Step.RESOURCES))
    groups = request + RUN_HEAD_SIZE
    _expect(order, system_call("setgroups", u64(load32(request + 12)), groups), u64(Step.GROUPS))
    group, user = u64(load32(request + 8)), u64(load32(request + 4))
    _expect(order, system_call("setresgid", group, group, group), u64(Step.GROUPS))
    _expect(order, system_call("setresuid", user, user, user), u64(Step.USER))
    system_call("umask", _FILE_MASK)
    _expect(order, system_call("chdir", load64(order + Order.DIRECTORY)), u64(Step.DIRECTORY))
    mask = load64(agent + Agent.SCRATCH)
    store64(mask, u64(0))
    system_call("rt_sigprocmask", _SET_MASK, mask, 0, 8)
    _execute(order)


def _execute(order: u64) -> None:
    """execve(2), along the PATH where the command's name has no slash."""
    name = load64(load64(order + Order.WORDS))
    if _has_slash(name):
        result = system_call("execve", name, load64(order + Order.WORDS), load64(order + Order.VARIABLES))
        _expect(order, result, u64(Step.EXECUTE))
    found = s64(-_NO_ENTRY)
    place = _search_path(load64(order + Order.VARIABLES))
    while load8(name) != 0:
        candidate = order + Order.CANDIDATE
        end = candidate
        while load8(place) != 0 and load8(place) != 58 and end < candidate + _PATH_LIMIT:  # a colon
            store8(end, load8(place))
            end += 1
            place += 1
        if end + length(name) + 2 < candidate + 2 * _PATH_LIMIT:
            if end != candidate:
                end = append(end, text(b"/"))
            append(end, name)
            result = system_call(
                "execve", candidate, load64(order + Order.WORDS), load64(order + Order.VARIABLES)
            )
            if result not in (-_NO_ENTRY, -_NO_DIRECTORY):
                found = result
        if load8(place) != 58:
            break
        place += 1
    _expect(order, found, u64(Step.EXECUTE))


def _search_path(variables: u64) -> u64:
    """The value of PATH, or what it is by default."""
    place = variables
    while load64(place) != 0:
        variable = load64(place)
        if load32(variable) == 0x48544150 and load8(variable + 4) == 61:  # "PATH="
            return variable + 5
        place += 8
    return text(b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def _has_slash(name: u64) -> bool:
    place = name
    while load8(place) != 0:
        if load8(place) == 47:
            return True
        place += 1
    return False


def _expect(order: u64, result: s64, step: u64) -> None:
    """End the new process, with a report, where a system call failed."""
    if result < 0:
        report = order + Order.CANDIDATE
        store32(report, u32(-result))
        store32(report + 4, u32(step))
        system_call("write", load64(order + Order.REPORT), report, 8)
        system_call("exit_group", _NOT_FOUND)
