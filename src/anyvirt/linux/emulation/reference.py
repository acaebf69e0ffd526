"""The reference table of system calls, in Markdown, from the table that serves them.

`python -m anyvirt.linux.emulation.reference PAGE` brings the table in a documentation page up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.linux.emulation.abi import RISCV64
from anyvirt.linux.emulation.registry import Table

if TYPE_CHECKING:
    from anyvirt.linux.emulation.abi import Abi

_BEGIN = "<!-- system calls: generated, begin -->\n"
_END = "<!-- system calls: generated, end -->\n"


def system_calls_markdown(abi: Abi) -> str:
    """Two tables: the calls with a handler of their own, and those the host's kernel serves as they are."""
    table = Table(abi)
    served = table.served()
    handled = [(number, call) for number, call in served if not call.passed]
    passed = [(number, call) for number, call in served if call.passed]
    missing = sorted(set(abi.numbers) - {call.name for _, call in served})
    lines = [
        f"{len(served)} of {len(abi.numbers)} system calls of {abi.isa} are served. A * marks those that",
        "`SA_RESTART` restarts after a signal handler.",
        "",
        f"### With a handler ({len(handled)})",
        "",
        "| number | name | arguments | what it does |",
        "|---|---|---|---|",
    ]
    for number, call in handled:
        star = "\\*" if call.restart else ""
        lines.append(f"| {number} | `{call.name}`{star} | {' '.join(call.kinds)} | {call.summary} |")
    lines += ["", f"### Passed to the host's kernel with checked pointers ({len(passed)})", ""]
    lines += _paragraph([f"`{call.name}`" + ("\\*" if call.restart else "") for _, call in passed])
    lines += ["", f"### Answered with ENOSYS ({len(missing)})", ""]
    lines += _paragraph([f"`{name}`" for name in missing])
    return "\n".join(lines) + "\n"


def _paragraph(words: list[str], width: int = 118) -> list[str]:
    """Words joined by commas in lines of at most `width` characters."""
    lines, line = [], ""
    for index, word in enumerate(words):
        piece = word + ("," if index + 1 < len(words) else ".")
        if line and len(line) + 1 + len(piece) > width:
            lines.append(line)
            line = piece
        else:
            line = f"{line} {piece}".strip()
    return [*lines, line]


def updated(page: str) -> str:
    """`page` with the table between its markers made anew."""
    pattern = re.escape(_BEGIN) + ".*" + re.escape(_END)
    text = f"{_BEGIN}{system_calls_markdown(RISCV64)}{_END}"
    return re.sub(pattern, lambda _: text, page, flags=re.DOTALL)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(updated(path.read_text()))
