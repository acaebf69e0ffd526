"""Having something done by the thread that looks after a machine's agenda."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyvirt.boards.virt import VirtBoard


def post_to(board: VirtBoard, action: Callable[[], None]) -> None:
    """Have something done soon, under the machine's lock, by the thread that looks after its agenda.

    While the machine stands still, nothing is.
    """
    board.clock.call_at(0, action)
