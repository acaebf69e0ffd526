"""The command line: one verb, one file. Errors end in one sentence on stderr and the right exit status."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from anyvirt.errors import AnyvirtError, ExitCode

_VERBS = {
    "run": "run a command as a guest",
    "debug": "debug a whole machine by commands",
    "compare": "measure the built-in workloads, or a command, on every engine",
    "isa": "list the instruction sets, or show the reference page of one",
    "engines": "list the engines, whether they work here, and what they can do",
}


class _VerbGroup(click.Group):
    """Finds a verb's command in the module of its name, imported when the verb is used."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = import_module(f"anyvirt.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="anyvirt", message="%(prog)s %(version)s")
def anyvirt() -> None:
    """One guest, every architecture of virtualization, measured side by side."""


def main() -> NoReturn:
    """The console script: run the verb and exit with the status that shells expect."""
    _open_standard_streams()
    try:
        status = anyvirt.main(standalone_mode=False, prog_name="anyvirt")
    except AnyvirtError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" (see `{context.command_path} --help`)" if context else ""
        _fail(error.format_message() + hint, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(ExitCode.SIGNAL_BASE + 2)
    except BrokenPipeError:
        # The reader of our output has gone: die as other filters do, without a word.
        sys.stderr.close()
        sys.exit(ExitCode.SIGNAL_BASE + 13)
    sys.exit(status if isinstance(status, int) else 0)


def _open_standard_streams() -> None:
    """Put /dev/null in the place of closed streams, or a file opened later would become a guest's output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _fail(message: str, status: int) -> NoReturn:
    print(f"anyvirt: {message}", file=sys.stderr)
    sys.exit(status)
