"""What all commands share: their common options, and how they speak."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from ..files import plain
from .arguments import PATH
from .progress import ProgressFile


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command takes."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress and no messages."),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."),
        click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1)),
        click.option("--json", "as_json", is_flag=True, help="Standard output is exactly one JSON document."),
        click.option("--progress", "progress_file", type=PATH, metavar="FILE", help="Writes into FILE how far it is."),
    ):
        command = option(command)
    return command


setting = click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A parameter; may be repeated.")
limited = click.option("--limit", type=click.IntRange(1), help="Only the first N items.")
batched = click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1, 4096))


def one_by_one(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands that run a model over a dataset, image by image."""
    threads = click.option("--workers", default=0, type=click.IntRange(0, 64), help="Threads for the model (0: as many as cores).")
    return setting(threads(limited(command)))


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands that run a model over a dataset in batches."""
    return one_by_one(batched(command))


def at_large(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands whose work is done in pieces, by one process or many."""
    for option in (
        limited, batched,
        click.option("--threads", default=1, show_default=True, type=click.IntRange(1, 256),
                     help="For each model; part of the plan, so that the report does not depend on the machine."),
        click.option("--address", metavar="ADDRESS", help="Of a Ray cluster; without it Ray is started here, for this run."),
        click.option("--workers", default=0, type=click.IntRange(0, 4096),
                     help="Processes, or Ray's actors, each with a model (0: one a core, if worth it); the report is the same."),
        click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True),
        setting,
    ):  # fmt: skip
        command = option(command)
    return command


with_classes_map = click.option("--classes-map", type=PATH, metavar="FILE.csv", help="Lines 'model class, data class', where names differ.")


def judging(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say which classes are the same, which images belong together, and which are compared."""
    for option in (
        with_classes_map,
        click.option("--cluster", metavar="COLUMN|REGEX", help="What the bootstrap draws: a column of --groups, or a group in the ids."),
        click.option("--groups", type=PATH, metavar="FILE.csv", help="Lines 'item id, group': worst group and gap."),
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
        """A function (done, total) that tells how far it is, or None where nobody looks.

        It moves a bar, or says a line a minute where no terminal is, and writes the progress file.
        """
        kept = None if self.progress_file is None else ProgressFile(self.progress_file)
        if self.quiet:
            yield kept
            return
        if not sys.stderr.isatty():
            told: list[Callable[[int, int], None]] = [Ticker(what, self.say), *([kept] if kept is not None else [])]

            def tick(done: int, total: int) -> None:
                for each in told:
                    each(done, total)

            yield tick
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        left = TextColumn("{task.remaining:.0f} left")
        rate = TextColumn("{task.fields[rate]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), left, rate, TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=1, rate="")

            def tell(done: int, total: int) -> None:
                speed = bar.tasks[0].speed
                bar.update(task, completed=done, total=total, rate="" if speed is None else f"{speed:.3g} a second")
                if kept is not None:
                    kept(done, total)

            yield tell


class Ticker:
    """Says how far a long job is, now and then: done, left, rate, time to go.

    What was done already when it began, by a run that is resumed, counts as done and not for the rate.

    >>> tick = Ticker("probe", print, every=0)
    >>> tick.clock = iter([0.0, 10.0, 20.0]).__next__
    >>> tick(4, 24); tick(9, 24); tick(14, 24)
    probe: 9 done, 15 left, 0.5 a second, 0:00:30 to go
    probe: 14 done, 10 left, 0.5 a second, 0:00:20 to go
    """

    def __init__(self, what: str, say: Callable[[str], None], every: float = 60.0) -> None:
        self.what, self.say, self.every, self.clock = what, say, every, time.monotonic
        self._began = self._said = time.monotonic()
        self._before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = self.clock()
        if self._before is None:
            self._before, self._began, self._said = done, now, now
        elif now - self._said >= self.every and done > self._before and now > self._began:
            self._said = now
            rate = (done - self._before) / (now - self._began)
            left = timedelta(seconds=round((total - done) / rate))
            self.say(f"{self.what}: {done} done, {total - done} left, {rate:.3g} a second, {left} to go")


def with_session(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def call(*, as_json: bool, quiet: bool, progress_file: Path | None, **arguments: Any) -> None:
        command(Session(as_json, quiet, progress_file), **arguments)

    return call
