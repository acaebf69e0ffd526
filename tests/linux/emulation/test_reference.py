"""The documentation's table of system calls is the code's."""

from anyvirt.linux.emulation.reference import updated

from .conftest import CHECKOUT


def test_the_documented_system_calls_are_those_that_are_served():
    page = (CHECKOUT / "docs/engines/user.md").read_text()
    assert updated(page) == page, "run: python -m anyvirt.linux.emulation.reference docs/engines/user.md"
    assert "| 221 | `execve` |" in page
