"""The documentation is true: links lead somewhere, examples run, generated tables are current."""

import os
import re
import textwrap
from pathlib import Path

import pytest

from anyvirt.engines import get
from anyvirt.engines.listing import matrix_markdown
from anyvirt.guest import Guest
from anyvirt.running import run_guest

pytest_plugins = ["pytester"]

CHECKOUT = Path(__file__).resolve().parent.parent
PAGES = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((CHECKOUT / "docs").rglob("*.md"))


def blocks(page, language):
    """The fenced code blocks of a page in one language."""
    text = (CHECKOUT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_lead_to_files_that_exist(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_the_capability_matrix_in_the_readme_is_the_code_s():
    assert matrix_markdown() in (CHECKOUT / "README.md").read_text()


def test_the_python_example_in_the_readme_runs(capfd):
    if not get("container").probe().available:
        pytest.skip("engine container is not available: " + get("container").probe().reason)
    (example,) = blocks("README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    assert capfd.readouterr().out


def test_every_option_and_verb_in_the_readme_exists():
    import click

    from anyvirt.cli import anyvirt

    text = (CHECKOUT / "README.md").read_text()
    context = click.Context(anyvirt)
    for verb, options in re.findall(r"anyvirt (\w+)((?: --?[a-z-]+(?: [A-Za-z0-9.:/]+)?)*)", text):
        command = anyvirt.get_command(context, verb)
        if command is None:
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in options.split() if word.startswith("-") and word != "--"} <= known


def test_the_machine_on_the_page_about_memory_runs(capfd):
    example, privileged = blocks("docs/machine-memory.md", "python")
    exec(compile(example, "machine-memory.md", "exec"), {})
    assert "BREAKPOINT" in capfd.readouterr().out
    exec(compile(privileged, "machine-memory.md", "exec"), {})
    assert capfd.readouterr().out.split() == ["11", str(0x8000_0010), "True"]


def test_the_machine_on_the_page_about_machines_runs(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("docs/machines.md", "python")
    exec(compile(example, "machines.md", "exec"), {})
    assert capfd.readouterr().out == "poweroff Hi 0\n"


def test_the_machine_on_the_page_about_snapshots_runs(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("docs/snapshots.md", "python")
    exec(compile(example, "snapshots.md", "exec"), {})
    assert capfd.readouterr().out == "[664, 664, 664]\n"


def test_the_device_on_the_page_about_virtio_works(capfd):
    (example,) = blocks("docs/virtio.md", "python")
    names = {}
    exec(compile(example, "virtio.md", "exec"), names)
    assert capfd.readouterr().out == "b'virt' 4\n"
    from tests.devices.virtio.driver import FakeMemory, Guest

    guest = Guest(names["CountingSource"](FakeMemory()))
    assert guest.request(0, [], [2, 3]) == (bytes(range(5)), 5)


def test_the_engine_of_the_tutorial_works(tmp_path):
    """docs/adding-an-engine.md builds an engine in pieces; together they are one that runs."""
    pieces = [textwrap.dedent(block) for block in blocks("docs/adding-an-engine.md", "python")]
    first, *methods = pieces
    source = "\n".join(
        (
            "from __future__ import annotations",
            "import os",
            "from anyvirt.engines.host_process import HostProcessInstance",
            "from anyvirt.linux.program import host_isas",
            first,
            *(textwrap.indent(method, "    ") for method in methods),
        )
    )
    names = {}
    exec(compile(source, "adding-an-engine.md", "exec"), names)
    engine = names["ChrootEngine"]()
    if os.geteuid() != 0:
        assert not engine.probe().available
        pytest.skip("chroot(2) needs root")
    assert engine.probe().available
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anyvirt.running.get", lambda name: engine)
        guest = Guest(command=["/bin/sh", "-c", "echo in $PWD"], rootfs=Path("/"))
        completed = run_guest(guest, on="chroot", capture_output=True)
    assert completed.stdout.startswith(b"in ")


def test_the_loop_on_the_page_about_tiers_runs(capfd):
    (example,) = blocks("docs/tiers.md", "python")
    exec(compile(example, "tiers.md", "exec"), {})
    assert capfd.readouterr().out.rstrip().endswith("1000000")


def test_the_device_of_the_tutorial_works(capsys):
    """docs/adding-a-device.md builds a watchdog in pieces, puts it on a board, and lets a guest use it."""
    first, *others = [textwrap.dedent(block) for block in blocks("docs/adding-a-device.md", "python")]
    methods = [block for block in others if block.startswith("def ")]
    programs = [block for block in others if not block.startswith("def ")]
    source = "\n".join((first, *(textwrap.indent(method, "    ") for method in methods), *programs))
    names = {}
    exec(compile(source, "adding-a-device.md", "exec"), names)
    assert capsys.readouterr().out.split() == ["False", "True", "False"]
    board, clock = names["board"], names["clock"]
    state = board.save_state()
    clock.advance_to(clock.now() + 10**9)
    assert board.wire(20).level
    board.load_state(state)
    assert not board.wire(20).level
    clock.advance_to(clock.now() + 500_000)
    assert board.wire(20).level


def test_the_tests_on_the_page_about_pytest_pass(pytester):
    if not get("container").probe().available:
        pytest.skip("engine container is not available: " + get("container").probe().reason)
    for number, example in enumerate(blocks("docs/pytest.md", "python")):
        (pytester.path / f"test_{number}.py").write_text(example)
    options = ("-p", "anyvirt.pytest", "-p", "no:cacheprovider", "--anyvirt-engines=container")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_about_a_booting_linux_can_be_followed(capfd, tmp_path, monkeypatch, stored_kernel):
    monkeypatch.chdir(tmp_path)
    names = {}
    for number, piece in enumerate(blocks("docs/tutorials/open-a-booting-linux.md", "python")):
        exec(compile(piece, f"open-a-booting-linux.md, piece {number}", "exec"), names)
    shown = capfd.readouterr().out
    assert shown.startswith("limit 0x")
    assert "] Linux version" in shown and "riscv64 GNU/Linux" in shown
    assert "hook 0x" in shown and " 1 /tmp/one\n" in shown
    assert "system call\n" in shown
    assert shown.endswith("poweroff\n")
