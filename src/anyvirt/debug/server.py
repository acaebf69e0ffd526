"""Serving a debugger until one of the two leaves: the loop around a session and a target that it may run."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from anyvirt.debug.session import Arrival, Departure, Session
from anyvirt.debug.target import Ended, Stopped, TargetError

if TYPE_CHECKING:
    from anyvirt.debug.connection import Connection
    from anyvirt.debug.session import Plan
    from anyvirt.debug.target import ResumableTarget


def serve(target: ResumableTarget, connection: Connection) -> Departure | Ended:
    """Let gdb have the target, which is stopped now, until gdb leaves, the line breaks or the target ends."""
    session = Session(connection, target)
    session.report(Stopped(target.threads()[0], signal.SIGTRAP), silently=True)
    try:
        while True:
            outcome = session.converse()
            if isinstance(outcome, Departure):
                return _leave(target, outcome)
            try:
                event = _run(session, target, outcome, connection)
            except TargetError as error:
                session.refuse(error)
                continue
            if isinstance(event, Departure):
                return _leave(target, event)
            session.report(event)
            if isinstance(event, Ended):
                return event
    finally:
        connection.close()


def _leave(target: ResumableTarget, departure: Departure) -> Departure:
    if departure is Departure.KILLED:
        target.kill()
    else:
        target.detach()
    return departure


def _run(
    session: Session, target: ResumableTarget, plan: Plan, connection: Connection
) -> Stopped | Ended | Departure:
    """Run the target until it stops, ends, or gdb interrupts it or is gone."""
    while True:
        # What came together with the packet that resumes makes no descriptor readable.
        match session.poll():
            case Arrival.INTERRUPT:
                return Stopped(next(iter(plan)), signal.SIGINT)
            case Arrival.LOST:
                return Departure.LOST
        event = target.resume(plan, connection.fileno())
        if event is not None:
            return event
        # It goes on where it was; signals have been delivered already.
        plan = {thread: replace(resume, signal=0) for thread, resume in plan.items()}
