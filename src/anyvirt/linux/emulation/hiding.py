"""Whether the emulator is hidden from the other processes of its guest, which has a root of its own."""

from __future__ import annotations

_is_hidden = False


def hide() -> None:
    """Let nobody look into this process or its children, nor follow their links in /proc to host files."""
    from anyvirt.linux.container.confinement import hide_from_guest

    global _is_hidden  # noqa: PLW0603 (a process is hidden or not)
    hide_from_guest()
    _is_hidden = True


def is_hidden() -> bool:
    """Whether `hide` was called."""
    return _is_hidden
