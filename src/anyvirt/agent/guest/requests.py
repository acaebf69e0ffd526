"""What each request means: the one table of the agent's interpreter."""

from anyvirt.agent.guest.channel import done, open_channel, payload, send
from anyvirt.agent.guest.parsing import count_texts, text_behind
from anyvirt.agent.guest.run import run
from anyvirt.agent.guest.setup import (
    add_gateway,
    load_module,
    make_directory,
    make_link,
    mount,
    raise_interface,
    set_address,
    set_host_name,
    switch_root,
    write_file,
)
from anyvirt.agent.guest.shutdown import shut_down
from anyvirt.agent.guest.state import COMMAND_SIZE, NONE, Agent, Command, State, command_with
from anyvirt.agent.guest.streams import grant, release, take_input
from anyvirt.agent.protocol import COMMAND_LIMIT, NONCE_SIZE, PLAN_IDENTITY, VERSION, Kind, Step, Stream
from anyvirt.jit.system import system_call
from anyvirt.typed import load32, load64, range, s64, store32, store64, u32, u64

_INVALID, _UNKNOWN = 22, 38  # EINVAL, ENOSYS
_SET_WINDOW_SIZE = 0x5414  # TIOCSWINSZ
_KILL = 9  # SIGKILL
_UNAME_SIZE = 6 * 65  # struct new_utsname


def perform(agent: u64, kind: u64, identity: u64, request: u64, size: u64) -> u64:
    """Do what a request wants and answer it; an error number, or 0."""
    if kind >= Kind.INPUT and kind <= Kind.RESIZE:
        _about_command(agent, kind, identity, request, size)
        return u64(0)
    if kind == Kind.HELLO:
        _welcome(agent, identity, request, size)
        return u64(0)
    if kind == Kind.RUN:
        return run(agent, identity, request, size)
    error = _change_world(agent, kind, request, size)
    done(agent, identity, error, u64(Step.REQUEST))
    if kind == Kind.SHUTDOWN and error == 0:
        shut_down(agent, u64(load32(request)), u64(load32(request + 4)))
    return error


def _change_world(agent: u64, kind: u64, request: u64, size: u64) -> u64:
    """Requests that are over once they are answered."""
    end = request + size
    error = u64(_INVALID)
    if kind == Kind.SHUTDOWN:
        error = u64(0) if size == 8 else error
    elif kind == Kind.MOUNT:
        if size > 12 and count_texts(request + 12, end) == 4:
            error = mount(agent, load64(request), u64(load32(request + 8)), request + 12)
    elif kind == Kind.MAKE_DIRECTORY:
        if size > 4 and count_texts(request + 4, end) == 1:
            error = make_directory(request + 4, u64(load32(request)))
    elif kind >= Kind.ADDRESS and kind <= Kind.WRITE_FILE:
        error = _introduce_to_network(agent, kind, request, size)
    elif kind in (Kind.LINK, Kind.LOAD_MODULE):
        if count_texts(request, end) == 2 and kind == Kind.LINK:
            error = make_link(request, text_behind(request))
        elif count_texts(request, end) == 2:
            error = load_module(request)
    elif count_texts(request, end) == 1:
        error = _with_one_text(agent, kind, request)
    return error


def _introduce_to_network(agent: u64, kind: u64, request: u64, size: u64) -> u64:
    """Requests that tell the guest its address, where others are, and who knows their names."""
    end = request + size
    error = u64(_INVALID)
    if kind == Kind.ADDRESS:
        if size > 8 and count_texts(request + 8, end) == 1:
            error = set_address(agent, request, request + 8)
    elif kind == Kind.GATEWAY:
        if size > 4 and count_texts(request + 4, end) == 1:
            error = add_gateway(agent, request, request + 4)
    elif size > 4 and count_texts(request + 4, end) == 2:
        error = write_file(request + 4, u64(load32(request)))
    return error


def _with_one_text(agent: u64, kind: u64, word: u64) -> u64:
    if kind == Kind.SWITCH_ROOT:
        return switch_root(agent, word)
    if kind == Kind.HOST_NAME:
        return set_host_name(word)
    if kind == Kind.INTERFACE_UP:
        return raise_interface(agent, word)
    if kind == Kind.CHANNEL and load64(agent + Agent.CHANNEL) == NONE:
        return open_channel(agent, word)
    return u64(_UNKNOWN)


def _welcome(agent: u64, identity: u64, request: u64, size: u64) -> None:
    """Tell a host that has come who is here and how the plan went, and forget the one before it."""
    for number in range(u64(COMMAND_LIMIT)):
        command = load64(agent + Agent.COMMANDS) + number * COMMAND_SIZE
        is_host_s = load64(command + Command.IDENTITY) < PLAN_IDENTITY
        if load64(command + Command.STATE) != State.FREE and is_host_s:
            system_call("kill", -s64(load64(command + Command.PROCESS)), _KILL)
            release(command)
    content = payload(agent)
    store64(content, load64(request) if size == NONCE_SIZE else u64(0))
    store32(content + 8, u32(VERSION))
    store32(content + 12, u32(load64(agent + Agent.PLAN_STEPS)))
    store32(content + 16, u32(load64(agent + Agent.PLAN_ERROR)))
    store32(content + 20, u32(load64(agent + Agent.PLAN_KIND)))
    system_call("uname", content + 24)
    send(agent, u64(Kind.WELCOME), identity, u64(24 + _UNAME_SIZE))


def _about_command(agent: u64, kind: u64, identity: u64, request: u64, size: u64) -> None:
    """What concerns a command that runs; it may just have ended, and then nothing happens."""
    command = command_with(agent, u64(Command.IDENTITY), identity)
    if command == 0:
        return
    if kind == Kind.INPUT:
        take_input(agent, command, request, size)
        return
    if size != 8:
        return
    first, second = u64(load32(request)), u64(load32(request + 4))
    if kind == Kind.CREDIT:
        if first in (Stream.OUTPUT, Stream.ERRORS):
            grant(command, first, second)
    elif load64(command + Command.STATE) == State.RUNNING:
        process = s64(load64(command + Command.PROCESS))
        if kind == Kind.SIGNAL:
            system_call("kill", -process if second != 0 else process, first)
        elif load64(command + Command.OUTPUT) != NONE:
            system_call("ioctl", load64(command + Command.OUTPUT), _SET_WINDOW_SIZE, request)
