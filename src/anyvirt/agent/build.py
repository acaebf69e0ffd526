"""The agent's program for an ISA: compiled once, then taken from the cache of programs.

It is kept under a name that is made from its sources: a start that finds it there imports neither them nor
the front end, which would also stay in the memory of a machine's process.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.jit.apart import made_apart
from anyvirt.jit.cache import version
from anyvirt.jit.program_cache import keep_program, kept_program

if TYPE_CHECKING:
    from anyvirt.isa.names import Isa


def agent_program(isa: Isa) -> bytes:
    """The static executable. Raises UsageError for an ISA that programs cannot be built for."""
    name = f"agent-{_sources_key(isa)}"
    program = kept_program(name)
    if program is None:
        program = made_apart(lambda: _build(isa)) or _build(isa)
        keep_program(name, program)
    return program


def _build(isa: Isa) -> bytes:
    from anyvirt.agent.guest.program import main
    from anyvirt.jit.program import build_program

    return build_program(main, isa)


def _sources_key(isa: Isa) -> str:
    """A hash of the agent's sources, and of the version of what compiles them."""
    digest = hashlib.sha256(f"{isa} {version()}\n".encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]
