"""The end: processes are asked to end, then killed; file systems are put in order; power goes off."""

from anyvirt.agent.guest.channel import pause
from anyvirt.agent.guest.state import COMMAND_SIZE, Agent, Command, State
from anyvirt.agent.guest.streams import reap
from anyvirt.agent.protocol import COMMAND_LIMIT, Shutdown
from anyvirt.jit.system import system_call, text
from anyvirt.typed import load64, range, s64, u64

_TERMINATE, _KILL = 15, 9
_PATIENCE = 10
_NO_WAIT = 1  # WNOHANG
_NO_CHILD = -10  # ECHILD
_READ_ONLY_AGAIN = 33  # MS_REMOUNT | MS_RDONLY
_MAGIC, _MAGIC_TOO = 0xFEE1DEAD, 672274793  # of reboot(2)
_POWER_OFF, _RESTART, _HALT = 0x4321FEDC, 0x01234567, 0xCDEF0123


def shut_down(agent: u64, how: u64, grace: u64) -> None:
    """End everything. Does not return."""
    _signal_all(agent, u64(_TERMINATE))
    waited = u64(0)
    while waited < grace and not _all_ended(agent):
        pause(agent, u64(_PATIENCE))
        waited += _PATIENCE
    _signal_all(agent, u64(_KILL))
    system_call("sync")
    if load64(agent + Agent.IS_FIRST) != 0:
        system_call("mount", 0, text(b"/"), 0, _READ_ONLY_AGAIN, 0)
        command = u64(_POWER_OFF)
        if how == Shutdown.REBOOT:
            command = u64(_RESTART)
        if how == Shutdown.HALT:
            command = u64(_HALT)
        system_call("reboot", _MAGIC, _MAGIC_TOO, command, 0)
    system_call("exit_group", 0)


def _signal_all(agent: u64, number: u64) -> None:
    """To every process of the guest; where the agent is not its first, to its commands only."""
    if load64(agent + Agent.IS_FIRST) != 0:
        system_call("kill", s64(-1), number)
        return
    for index in range(u64(COMMAND_LIMIT)):
        command = load64(agent + Agent.COMMANDS) + index * COMMAND_SIZE
        if load64(command + Command.STATE) == State.RUNNING:
            system_call("kill", -s64(load64(command + Command.PROCESS)), number)


def _all_ended(agent: u64) -> bool:
    reap(agent)
    return system_call("wait4", s64(-1), 0, _NO_WAIT, 0) == _NO_CHILD
