"""The pytest plugin, by test suites that use it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from anyvirt.engines import get
from anyvirt.engines.engine import Capability

pytest_plugins = ["pytester"]

CHECKOUT = Path(__file__).resolve().parent.parent
PLUGIN = ("-p", "anyvirt.pytest", "-p", "no:cacheprovider")


NO_PROBE = """
    from anyvirt.engines.engine import Availability
    from anyvirt.engines.machine_engine import MachineEngine

    MachineEngine.probe = lambda self: Availability(available=True)
"""
"""No look for a kernel, which may have to be fetched."""


@pytest.fixture
def run(pytester):
    """Runs a test suite of one file with the plugin, in a process of its own."""

    def run(source, *options, conftest=""):
        pytester.makepyfile(test_suite=source)
        pytester.makeconftest(conftest)
        return pytester.runpytest_subprocess(*PLUGIN, *options)

    run.path = pytester.path
    return run


@pytest.fixture
def container_works():
    availability = get("container").probe()
    if not availability.available:
        pytest.skip("engine container is not available: " + availability.reason)


def test_pytest_finds_the_plugin_where_the_package_is_installed():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"anyvirt.pytest": "anyvirt.pytest"}


def test_a_project_that_does_not_use_it_pays_for_names_only(pytester):
    pytester.makepyfile("def test_nothing(): pass")
    probe = (
        "import sys, pytest; status = pytest.main(['-q', *sys.argv[1:]]); "
        "print('MODULES', *sys.modules); sys.exit(status)"
    )
    words = [sys.executable, "-c", probe, *PLUGIN]
    completed = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert completed.returncode == 0, completed.stdout
    modules = completed.stdout.rpartition("MODULES")[2].split()
    assert "anyvirt.pytest" in modules
    loaded = {name for name in modules if name.startswith("anyvirt")}
    assert loaded <= {"anyvirt", "anyvirt.pytest", "anyvirt.errors", "anyvirt.compare", "anyvirt.engines"}


def test_each_test_gets_a_fresh_container(run, container_works):
    result = run(
        """
        import pytest

        @pytest.mark.parametrize("turn", [1, 2])
        def test_files(container, turn):
            assert not container.run(["test", "-e", "/etc/mine"]).succeeded
            container.write("/etc/mine", "hello\\n", mode=0o600)
            assert container.shell("stat -c %a /etc/mine; cat /etc/mine") == "600\\nhello\\n"
            assert container.engine == "container"
        """
    )
    result.assert_outcomes(passed=2)


def test_guest_runs_once_on_each_engine_of_the_run(run, container_works):
    source = """
        def test_name(guest, anyvirt_engine):
            assert guest.engine == anyvirt_engine
            assert guest.shell("uname -s") == "Linux\\n"
    """
    result = run(source, "--anyvirt-engines", "container,native", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_name[[]container]*", "*test_name[[]native]*"])


def test_the_usual_engines_are_those_that_isolate(run):
    result = run("def test_name(guest): pass", "--collect-only", "-q")
    shown = {line.partition("[")[2].rstrip("]") for line in result.outlines if "test_name[" in line}
    from anyvirt.engines import engine_names

    isolating = {name for name in engine_names() if Capability.ISOLATION in get(name).capabilities}
    assert shown == isolating


def test_a_configuration_file_can_name_the_engines(run, pytester):
    pytester.makeini("[pytest]\nanyvirt_engines = container\n")
    result = run("def test_name(guest): pass", "--collect-only", "-q")
    assert [line for line in result.outlines if "test_name[" in line] == [
        "test_suite.py::test_name[container]"
    ]


def test_a_marker_says_where_a_test_runs_and_what_it_gets(run, container_works):
    result = run(
        """
        import pytest

        pytestmark = pytest.mark.anyvirt(engines=["container"], env={"COLOUR": "blue"}, hostname="box")

        def test_module(guest):
            assert guest.shell("echo $COLOUR; hostname") == "blue\\nbox\\n"

        @pytest.mark.anyvirt(env={"COLOUR": "red"}, workdir="/tmp")
        def test_function(guest):
            assert guest.shell("echo $COLOUR; hostname; pwd") == "red\\nbox\\n/tmp\\n"
        """
    )
    result.assert_outcomes(passed=2)


def test_a_run_can_leave_engines_of_a_marker_out(run):
    source = """
        import pytest

        @pytest.mark.anyvirt(engines=["container", "translator"])
        def test_name(guest): pass

        @pytest.mark.anyvirt(engines=["translator"])
        def test_other(guest): pass
    """
    result = run(source, "--collect-only", "-q", "--anyvirt-engines=container")
    names = [line.partition("::")[2] for line in result.outlines if "::" in line]
    assert names[0] == "test_name[container]"
    assert len(names) == 2 and "NOTSET" in names[1]


def test_an_engine_that_does_not_work_is_skipped_with_its_own_reason(run):
    conftest = """
        from anyvirt.engines.container import ContainerEngine
        from anyvirt.engines.engine import Availability

        gone = Availability(available=False, reason="the moon is in the wrong place")
        ContainerEngine.probe = lambda self: gone
    """
    result = run("def test_name(container): pass", "-rs", conftest=conftest)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*engine container is not available here: the moon is in the wrong place*"])


def test_an_engine_that_lacks_what_a_test_needs_is_skipped_unless_the_test_names_it(run, pytester):
    (pytester.path / "kernel").write_text("")
    result = run(
        """
        import pytest

        @pytest.mark.anyvirt(kernel="kernel")
        def test_any(container): pass

        @pytest.mark.anyvirt(kernel="kernel", engines=["container"])
        def test_named(guest): pass
        """,
        "-rs",
    )
    result.assert_outcomes(skipped=1, errors=1)
    result.stdout.fnmatch_lines(["*engine container has no kernel*"])


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ("colour='red'", "*the marker anyvirt of * has no argument colour*"),
        ("'container'", "*has no argument 'container'*"),
        ("engines=['moon']", "*there is no engine 'moon': the engines are native, container*"),
        ("engines=['container'], rootfs='nowhere'", "*root filesystem *nowhere does not exist*"),
    ],
)
def test_mistakes_in_markers_are_told_in_a_sentence(run, marker, complaint):
    result = run(f"import pytest\n@pytest.mark.anyvirt({marker})\ndef test_name(guest): pass\n")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([complaint])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_unknown_engine_of_a_run_ends_it(run):
    result = run("def test_name(guest): pass", "--anyvirt-engines=moon")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: there is no engine 'moon'*"])


def test_a_guest_has_to_be_an_argument(run):
    result = run("def test_name(request): request.getfixturevalue('guest')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*asks for the fixture `guest` while it runs*"])


def test_a_failure_shows_the_end_of_the_consoles(run):
    """The console of a machine: here one that prints by itself."""
    result = run(
        """
        import pytest
        from anyvirt.isa.riscv64_system import riscv64_system
        from anyvirt.machines.machine import Machine
        from anyvirt.testing.maker import GuestMaker

        PROGRAM = riscv64_system.assemble(
            \"\"\"
                lui t0, 0x10000
                addi t1, zero, 72
                sb t1, 0(t0)
                addi t1, zero, 105
                sb t1, 0(t0)
            wait: wfi
                jal zero, wait
            \"\"\",
            pc=0x8000_0000,
        )

        @pytest.fixture
        def anyvirt_guests(tmp_path):
            class Maker:
                def machine(self, engine, guest):
                    (tmp_path / "program").write_bytes(PROGRAM)
                    return Machine(firmware=tmp_path / "program", memory="16M", tier="interpreter")

            return Maker()

        def test_name(machine, monkeypatch):
            machine.run(instructions=100)
            machine.console.output(b"\\x1b[6n there")
            assert machine.console.text == "Ho"
        """,
        conftest=NO_PROBE,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- Console of the machine -*", "Hi there"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_machines_come_as_guests_and_as_machines(run, stored_kernel):
    source = """
        import pytest

        @pytest.mark.anyvirt(engines=["translator", "interpreter"])
        @pytest.mark.parametrize("turn", [1, 2])
        def test_guest(guest, turn):
            assert guest.check(["uname", "-mn"]).stdout == "guest riscv64\\n"
            assert not guest.run(["test", "-e", "/etc/mine"]).succeeded
            guest.write("/etc/mine", b"mine")
            guest.pause()
            assert guest.machine.harts[0].csr["satp"] >> 60 in (8, 9, 10)
            guest.resume()
            assert guest.read("/etc/mine") == b"mine"

        @pytest.mark.parametrize("turn", [1, 2])
        def test_machine(machine, turn):
            machine.console.send("ls /mine; touch /mine; echo $?\\n")
            machine.console.expect(r"No such file[^0]*(?m:^0)")
            machine.console.send("exit\\n")
            assert machine.run(seconds=100).reason == "poweroff"

        @pytest.mark.anyvirt(engines=["translator"], hostname="box", mounts=["shared:/mnt"])
        @pytest.mark.parametrize("turn", [1, 2])
        def test_mounts(guest, turn):
            guest.shell(f"hostname > /mnt/{turn}")
            assert open(f"shared/{turn}").read() == "box\\n"
    """
    (run.path / "shared").mkdir()
    run(source, "-ra").assert_outcomes(passed=8)
    # From now on there is a snapshot to go on from.
    result = run(source, "-k", "test_guest and translator", "--durations=0", "-vv")
    result.assert_outcomes(passed=2, deselected=6)
