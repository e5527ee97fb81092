"""The command line: arguments -> one library call -> print.  One file in ``commands`` is one command.

Standard output holds the result, standard error progress and messages.  Exit status: 0 done, 2 the input or the
arguments are at fault (one line), 3 a shortcut was found (audit --fail-on-finding), 130 after Ctrl-C, 1 anything else.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import click

from .. import __version__
from ..errors import XaiError
from . import commands


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="xaitools")
def cli() -> None:
    """Shows why a segmentation or detection model decided as it did, and finds out whether it cheats."""


for _found in pkgutil.iter_modules(commands.__path__):
    cli.add_command(importlib.import_module(f"{commands.__name__}.{_found.name}").command, _found.name)


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        cli.main(args=None if arguments is None else list(arguments), prog_name="xaitools", standalone_mode=False)
    except XaiError as error:
        fail(str(error), 2)
    except click.UsageError as error:
        where = f"xaitools {error.ctx.info_name}" if error.ctx and error.ctx.parent else "xaitools"
        fail(f"{' '.join(error.format_message().split())} (see {where} --help)", 2)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted; what was done stays", 130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has gone; Python would complain once more while closing
        sys.exit(0)
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}; check the place and its permissions", 2)
    sys.exit(0)


def fail(message: str, status: int) -> None:
    click.echo(f"xaitools: {message}", err=True)
    sys.exit(status)
