"""What all commands share: their common options, and how they speak."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..files import plain
from .progress import ProgressFile


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command takes."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress and no messages."),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."),
        click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1)),
        click.option("--json", "as_json", is_flag=True, help="Standard output is exactly one JSON document."),
        click.option(
            "--progress", "progress_file", type=click.Path(path_type=Path), metavar="FILE", help="Writes into FILE how far it is."
        ),
    ):
        command = option(command)
    return command


def one_by_one(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands that run a model over a dataset, image by image."""
    for option in (
        click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A parameter; may be repeated."),
        click.option("--workers", default=0, type=click.IntRange(0, 64), help="Threads for the model (0: as many as cores)."),
        click.option("--limit", type=click.IntRange(1), help="Only the first N items."),
    ):
        command = option(command)
    return command


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands that run a model over a dataset in batches."""
    return one_by_one(click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1, 4096))(command))


with_classes_map = click.option(
    "--classes-map", type=click.Path(path_type=Path), metavar="FILE.csv", help="Lines 'model class, data class', where names differ."
)


def judging(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say which classes are the same, which images belong together, and which are compared."""
    for option in (
        with_classes_map,
        click.option("--cluster", metavar="COLUMN|REGEX", help="What the bootstrap draws: a column of --groups, or a group in the ids."),
        click.option("--groups", type=click.Path(path_type=Path), metavar="FILE.csv", help="Lines 'item id, group': worst group and gap."),
    ):
        command = option(command)
    return command


class Session:
    """How a command speaks: progress and remarks to standard error, one result to standard output; progress also to a file."""

    def __init__(self, as_json: bool, quiet: bool, progress_file: Path | None = None) -> None:
        self.as_json, self.quiet, self.progress_file = as_json, quiet, progress_file

    def say(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)

    def result(self, document: Any, text: str) -> None:
        click.echo(json.dumps(plain(document), ensure_ascii=False, allow_nan=False) if self.as_json else text)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None] | None]:
        """A function (done, total) that moves a bar and writes the progress file, or None where nobody looks."""
        kept = None if self.progress_file is None else ProgressFile(self.progress_file)
        if self.quiet or not sys.stderr.isatty():
            yield kept
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)

            def move(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)
                if kept is not None:
                    kept(done, total)

            yield move


def with_session(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def call(*, as_json: bool, quiet: bool, progress_file: Path | None, **arguments: Any) -> None:
        command(Session(as_json, quiet, progress_file), **arguments)

    return call
