"""Letting a machine be as one that was restored from its state, so that both go on in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anyvirt.machines.machine import Machine


def settle(machine: Machine) -> None:
    """Take away what no state holds: alarms that turn out to be for nothing, and what TLBs remember."""
    with machine.lock:
        state = machine.board.save_state()
        machine.clock.restart(machine.clock.now())
        machine.board.load_state(state)
        machine.console.await_room()
    for hart in machine.harts:
        hart.system.forget_alarm()
    machine.board.memory.flush_tlb()
