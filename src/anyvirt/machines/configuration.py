"""What a machine is made of, as its user has said it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyvirt.devices.bus import StateError

if TYPE_CHECKING:
    from anyvirt.devices.bus import State

_TEXTS = ("board", "append")
_PATHS = ("kernel", "initrd", "firmware")


@dataclass(frozen=True)
class Configuration:
    """All that is needed to make the machine again, but devices of the user's and the tier."""

    board: str
    memory: int
    """Bytes."""
    cpus: int
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    firmware: Path | None = None
    seed: int | None = None
    display: tuple[int, int] | None = None
    """Pixels in each direction."""

    def save_state(self) -> State:
        """Plain values; files by their absolute paths."""
        paths = {name: getattr(self, name) for name in _PATHS}
        size = None if self.display is None else list(self.display)
        files = {name: path and str(path.absolute()) for name, path in paths.items()}
        return asdict(self) | files | {"display": size}

    @classmethod
    def load_state(cls, state: State) -> Configuration:
        """The opposite of `save_state`. Raises StateError."""
        # Snapshots of before there were displays say nothing about one.
        known: State = {"display": None}
        state = known | state
        size = state["display"]
        fits = (
            state.keys() == set(cls.__dataclass_fields__)
            and all(isinstance(state[name], str) for name in _TEXTS)
            and all(isinstance(state[name], str | None) for name in _PATHS)
            and all(type(state[name]) is int for name in ("memory", "cpus"))
            and isinstance(state["seed"], int | None)
            and (size is None or _is_size(size))
        )
        if not fits:
            raise StateError("it does not say what machine it is of")
        paths = {name: None if state[name] is None else Path(state[name]) for name in _PATHS}
        return cls(**(state | paths | {"display": None if size is None else tuple(size)}))


def _is_size(value: object) -> bool:
    match value:
        case [int(), int()]:
            return True
    return False
