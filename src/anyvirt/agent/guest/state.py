"""What the agent remembers: one block of memory for itself and one for each command that runs.

Typed Python has no variables that outlive a function, so each field is a place at an offset, in 64 bits.
"""

from enum import IntEnum

from anyvirt.agent.protocol import COMMAND_LIMIT, HEADER_SIZE, PAYLOAD_LIMIT
from anyvirt.jit.system import system_call, text
from anyvirt.typed import load64, range, s64, store64, u64

NONE = u64(0xFFFF_FFFF_FFFF_FFFF)
"""A descriptor that is not open. As a number with a sign, -1."""
_READ_WRITE = 3  # PROT_READ | PROT_WRITE
_PRIVATE_ANONYMOUS = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS
_PAGE = 4096
_OUT_OF_MEMORY = 12  # ENOMEM


class Agent(IntEnum):
    """Fields of the agent."""

    CHANNEL = 0
    IS_PORT = 8
    """1 for a virtio-console port, where the host may go and come again."""
    IS_AWAY = 16
    """1 when the host was found to be away a moment ago."""
    SIGNALS = 24
    """The signalfd that reports ended children."""
    INPUT = 32
    FILL = 40
    """Bytes that are at INPUT."""
    OUTPUT = 48
    """Where the one frame that is being sent is put together."""
    COMMANDS = 56
    POLL = 64
    SCRATCH = 72
    """A page for the arguments of system calls; no function expects it to survive another one."""
    PLAN_STEPS = 80
    PLAN_ERROR = 88
    PLAN_KIND = 96
    IS_FIRST = 104
    """1 when the agent is process 1 and so may power the machine off."""


class Command(IntEnum):
    """Fields of a command."""

    STATE = 0
    IDENTITY = 8
    PROCESS = 16
    INPUT = 24
    OUTPUT = 32
    ERRORS = 40
    """The agent's ends of the streams; on a terminal INPUT and OUTPUT are the same one twice."""
    OUTPUT_CREDIT = 48
    ERRORS_CREDIT = 56
    BUFFER = 64
    """Input that the command has not taken yet."""
    FILL = 72
    INPUT_ENDS = 80
    """1 when no input will follow what is in the buffer."""
    IS_MAIN = 88
    STATUS = 96
    USER_TIME = 104
    SYSTEM_TIME = 112
    PEAK_MEMORY = 120
    OUTPUT_LEFT = 128
    ERRORS_LEFT = 136
    """Bytes that may still be read after the command's end: what its pipes can have held then."""


class State(IntEnum):
    """Of a command."""

    FREE = 0
    RUNNING = 1
    ENDED = 2


COMMAND_SIZE = 144
INPUT_SIZE = 2 * (HEADER_SIZE + PAYLOAD_LIMIT)
OUTPUT_SIZE = HEADER_SIZE + PAYLOAD_LIMIT
POLL_SIZE = (2 + 3 * COMMAND_LIMIT) * 8


def new_agent() -> u64:
    """The agent's memory, with all that it points to."""
    agent = allocate(u64(_PAGE))
    store64(agent + Agent.CHANNEL, NONE)
    store64(agent + Agent.INPUT, allocate(u64(INPUT_SIZE)))
    store64(agent + Agent.OUTPUT, allocate(u64(OUTPUT_SIZE)))
    store64(agent + Agent.COMMANDS, allocate(u64(COMMAND_LIMIT * COMMAND_SIZE)))
    store64(agent + Agent.POLL, allocate(u64(POLL_SIZE)))
    store64(agent + Agent.SCRATCH, allocate(u64(_PAGE)))
    return agent


def allocate(size: u64) -> u64:
    """Fresh memory of `size` bytes, zeroed. The agent cannot go on without and ends."""
    address = system_call("mmap", 0, size, _READ_WRITE, _PRIVATE_ANONYMOUS, s64(-1), 0)
    if address < 0 and address > -4096:
        reason = text(b"anyvirt: the agent is out of memory\n")
        system_call("write", 2, reason, 36)
        system_call("exit_group", _OUT_OF_MEMORY)
    return u64(address)


def command_with(agent: u64, field: u64, value: u64) -> u64:
    """The command that is not free and has `value` in `field`, or 0."""
    commands = load64(agent + Agent.COMMANDS)
    for number in range(u64(COMMAND_LIMIT)):
        command = commands + number * COMMAND_SIZE
        if load64(command + Command.STATE) != State.FREE and load64(command + field) == value:
            return command
    return u64(0)


def free_command(agent: u64) -> u64:
    """Room for one more command, or 0."""
    commands = load64(agent + Agent.COMMANDS)
    for number in range(u64(COMMAND_LIMIT)):
        command = commands + number * COMMAND_SIZE
        if load64(command + Command.STATE) == State.FREE:
            return command
    return u64(0)


def close(place: u64) -> None:
    """Close the descriptor at `place`, where it is open."""
    if load64(place) != NONE:
        system_call("close", load64(place))
        store64(place, NONE)
