"""The command line: arguments -> one library call -> print.

Standard output holds the result, standard error progress and messages.  Exit status: 0 done, 2 the input or the
arguments are at fault (one line), 130 after Ctrl-C, 1 anything else.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from . import __version__
from .errors import PlanError, XaiError
from .files import plain


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


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command takes."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress and no messages."),
        click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ..."),
        click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1)),
        click.option("--json", "as_json", is_flag=True, help="Standard output is exactly one JSON document."),
    ):
        command = option(command)
    return command


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands that run a model over a dataset."""
    for option in (
        click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A parameter; may be repeated."),
        click.option("--workers", default=0, type=click.IntRange(0, 64), help="Threads for the model (0: as many as cores)."),
        click.option("--batch-size", default=8, show_default=True, type=click.IntRange(1, 4096)),
        click.option("--limit", type=click.IntRange(1), help="Only the first N items."),
    ):
        command = option(command)
    return command


class Session:
    """How a command speaks: progress and remarks to standard error, one result to standard output."""

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json, self.quiet = as_json, quiet

    def say(self, text: str) -> None:
        if not self.quiet:
            click.echo(text, err=True)

    def result(self, document: Any, text: str) -> None:
        click.echo(json.dumps(plain(document), ensure_ascii=False, allow_nan=False) if self.as_json else text)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None] | None]:
        """A function (done, total) that moves a bar, or None where nobody looks."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def with_session(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def call(*, as_json: bool, quiet: bool, **arguments: Any) -> None:
        command(Session(as_json, quiet), **arguments)

    return call


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="xaitools")
def cli() -> None:
    """Shows why a segmentation or detection model decided as it did, and finds out whether it cheats."""


@cli.command()
@common
@with_session
def models(session: Session, seed: int, device: str) -> None:
    """The zoo: trained models that ship with xaitools, and what they score."""
    from . import zoo

    rows = [_model_row(zoo.card(name)) for name in zoo.names()]
    lines = [f"{'name':26} {'task':14} {'data':46} {'score':>14} {'parameters':>11}  redistribution"]
    lines += [
        f"{row['name']:26} {row['task']:14} {row['data']:46} {row['metric'] + ' ' + format(row['score'], '.3f'):>14} "
        f"{row['parameters']:>11,}  {row['redistribution']}"
        for row in rows
    ]
    session.result(rows, "\n".join(lines))


def _model_row(card: dict[str, Any]) -> dict[str, Any]:
    score = card["scores"]["test"]
    return {
        "name": card["name"], "architecture": card["architecture"], "task": card["task"], "classes": card["classes"],
        "data": card["data"]["test"].replace("{data}/", ""), "metric": score["metric"], "score": score["value"],
        "parameters": card["weights"]["parameters"], "bytes": card["weights"]["bytes"], "redistribution": card["data"]["redistribution"],
    }  # fmt: skip


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="IMAGE... or DATASET")
@click.option("--model", "model_name", required=True, help="A model string, e.g. unet-scenes.")
@click.option("--target", "targets", multiple=True, help="What to explain (default top); may be repeated.")
@click.option("--method", "methods", multiple=True, help="One or more, separated by commas (default lrp).")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the figure, the maps and explanation.json.")
@click.option("--format", "formats", default="png", show_default=True, help="png, pdf, svg; several with commas.")
@click.option("--layout", type=click.Choice(["single", "sheet"]), default="single", show_default=True)
@click.option("--scale", help="Colour limits: shared (the default of a sheet), each (of single figures), or a number.")
@click.option("--width-mm", type=float, default=180.0, show_default=True)
@click.option("--dpi", type=click.IntRange(30, 1200), default=200, show_default=True)
@click.option("--font", default="DejaVu Sans", show_default=True)
@click.option("--no-titles", is_flag=True)
@click.option("--limit", type=click.IntRange(1), default=8, show_default=True, help="Of a dataset, only the first N items.")
@click.option("--set", "settings", multiple=True, metavar="NAME.KEY=VALUE", help="A parameter; may be repeated.")
@common
@with_session
def explain(
    session: Session, inputs: tuple[str, ...], model_name: str, targets: tuple[str, ...], methods: tuple[str, ...], out: Path | None,
    formats: str, layout: str, scale: str | None, width_mm: float, dpi: int, font: str, no_titles: bool, limit: int,
    settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """Why did the model decide so?  Predictions, relevance maps and a figure.

    Several images, or a dataset such as "scenes:test?n=4", give one folder each, or with --layout sheet one figure.
    """
    from .attribution.explanation import explain_image
    from .report.store import check_formats, save_explanations

    names = _split(methods) or ["lrp"]
    wanted = check_formats(_split([formats]))
    params = _settings(settings, {*names, "model"})
    model = _load(model_name, device, params.get("model", {}))
    done, skipped = [], []
    pictures = list(_pictures(inputs, limit))
    for name, picture in pictures:
        try:
            sample, truth_classes = picture()
            with session.progress(name) as progress:
                explanation = explain_image(
                    model, sample, targets or ("top",), names, name=name, seed=seed, params=params, truth_classes=truth_classes,
                    progress=progress,
                )  # fmt: skip
        except XaiError as error:
            if len(pictures) == 1:
                raise
            skipped.append({"id": name, "reason": str(error)})
            session.say(f"skipped {name}: {error}")
            continue
        done.append(explanation)
    if not done:
        raise PlanError(f"none of {len(pictures)} images could be explained; the first: {skipped[0]['reason']}")
    look = {"scale": scale, "width_mm": width_mm, "dpi": dpi, "font": font, "titles": not no_titles}
    documents, files = save_explanations(done, out, wanted, layout=layout, **look)
    for file in files:
        session.say(f"wrote {file}")
    result: Any = documents[0] if len(pictures) == 1 else {"explanations": documents, "skipped": skipped}
    session.result(result, "\n".join(_told(document) for document in documents))


def _told(document: dict[str, Any]) -> str:
    lines = [f"{document['image']}: {len(document['predictions'])} predictions by {document['model']}"]
    for row in document["explanations"]:
        told = row.get("error") or f"score {row['score']:.4g}, sum of the map {row['relevance_sum']:.4g}, {row['seconds']:.1f} s"
        lines.append(f"  {row['target']:24} {row['method']:20} {told}")
    return "\n".join(lines)


@cli.command()
@click.argument("dataset")
@click.option("--model", "model_name", required=True)
@running
@common
@with_session
def evaluate(
    session: Session, dataset: str, model_name: str, limit: int | None, batch_size: int, workers: int,
    settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """The task's metrics on clean data, with 95 % intervals."""
    from .data import load_dataset
    from .metrics.evaluate import evaluate as run

    data = load_dataset(dataset)
    model = _load(model_name, device, _settings(settings, {"model"}).get("model", {}), workers)
    with session.progress("evaluate") as progress:
        result = run(model, data, limit=limit, batch_size=batch_size, seed=seed, progress=progress)
    for item in result["skipped"]:
        session.say(f"skipped {item['id']}: {item['reason']}")
    for warning in result.get("warnings", []):
        session.say(f"warning: {warning}")
    per_class = "\n".join(f"  {name:20} {_number(value, None)}" for name, value in result["metrics"]["per_class"].items())
    session.result(result, f"{result['metric']} {_number(result['value'], result['ci'])} on {result['n']} images\n{per_class}")


@cli.command()
@click.argument("dataset")
@click.option("--model", "model_names", multiple=True, required=True, help="May be repeated to compare models.")
@click.option("--probes", multiple=True, help="Families or members, with commas (default: all families).")
@click.option("--severities", default="3", show_default=True, help="1 to 5, with commas.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the report; may not hold another run.")
@click.option("--engine", type=click.Choice(["local"]), default="local", show_default=True)
@click.option("--resume", is_flag=True, help="Go on with the same plan in --out.")
@running
@common
@with_session
def probe(
    session: Session, dataset: str, model_names: tuple[str, ...], probes: tuple[str, ...], severities: str, out: Path, engine: str,
    resume: bool, limit: int | None, batch_size: int, workers: int, settings: tuple[str, ...], seed: int, device: str,
) -> None:  # fmt: skip
    """How much accuracy is lost when a cue is changed: drops with paired intervals, and a report."""
    from .audit.run import probe_models
    from .data import load_dataset
    from .probes import PROBES
    from .report.html import write_report

    data = load_dataset(dataset)
    params = _settings(settings, {*PROBES, "model"})
    loaded = [_load(name, device, params.get("model", {}), workers) for name in model_names]
    levels = _severities(severities)
    with session.progress("probe") as progress:
        results = probe_models(
            loaded, data, _split(probes) or None, severities=levels, out=out, resume=resume, limit=limit, batch_size=batch_size,
            seed=seed, params={key: value for key, value in params.items() if key != "model"}, progress=progress,
        )  # fmt: skip
    for file in write_report(results, out):
        session.say(f"wrote {file}")
    reports = {name: result.report for name, result in results.items()}
    for name, report in reports.items():
        for warning in report["warnings"]:
            session.say(f"warning: {name}: {warning}")
    session.result(next(iter(reports.values())) if len(reports) == 1 else reports, "\n".join(map(_drops, reports.values())))


def _drops(report: Any) -> str:
    clean = report["clean"]
    lines = [f"{report['model']}: {report['metric']} {_number(clean['value'], clean['ci'])} on {report['n']} images"]
    for name, row in report["probes"].items():
        primary = row["primary"]
        lines.append(f"  {row['family']:12} {name:16} drop {_number(primary['drop'], primary['ci'])}")
    return "\n".join(lines)


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--data", help="Root of the data sets, instead of $XAITOOLS_DATA.")
@click.option("--resume", is_flag=True)
@common
@with_session
def train(session: Session, recipe: Path, out: Path, data: str | None, resume: bool, seed: int, device: str) -> None:
    """Make a model again from its recipe."""
    from .training import run_recipe

    card = run_recipe(recipe, out, data=data, resume=resume, say=session.say)
    told = [f"{split}: {row['metric']} {_number(row['value'], row['ci'])} (n = {row['n']})" for split, row in card["scores"].items()]
    session.result(card, "\n".join(told))


@cli.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True)
@common
@with_session
def dashboard(session: Session, port: int, seed: int, device: str) -> None:
    """The browser application, on localhost."""
    from .serve import serve

    session.say(f"http://localhost:{port} (Ctrl-C ends it)")
    if serve(port):
        raise XaiError(f"the dashboard did not start or broke off; is port {port} in use? try --port {port + 1}")


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@common
@with_session
def demo(session: Session, out: Path, seed: int, device: str) -> None:
    """The main job in one go, on what ships with the package: explain, probe, report."""
    from .demo import run

    with session.progress("demo") as progress:
        result = run(out, seed=seed, say=session.say, progress=progress)
    session.result(result, result["told"])


def _load(name: str, device: str, options: dict[str, str], workers: int = 0) -> Any:
    import torch

    from .zoo import load_model

    if workers:
        torch.set_num_threads(workers)
    known = {"score_threshold": float, "dtype": str}
    for key in options:
        if key not in known:
            raise XaiError(f"--set model.{key}: unknown; expected model.{' or model.'.join(known)}")
    try:
        values = {key: known[key](value) for key, value in options.items()}
    except ValueError:
        raise XaiError(f"--set model.score_threshold={options['score_threshold']}: expected a number from 0 to 1") from None
    return load_model(name, device=device, **values)


def _pictures(inputs: Sequence[str], limit: int) -> Iterator[tuple[str, Callable[[], tuple[Any, Sequence[str]]]]]:
    """(name, function that reads it) of every image; a dataset string stands for its first ``limit`` items."""
    from .data import LAYOUTS, load_dataset, read_image
    from .types import Sample

    for text in inputs:
        layout = text.partition(":")[0]
        if layout in LAYOUTS and not Path(text).exists():
            dataset = load_dataset(text)
            for index in range(min(limit, len(dataset))):
                yield str(dataset.ids[index]), lambda d=dataset, i=index: (d[i], d.semantic_classes)  # type: ignore[misc]
        else:
            name = Path(text).name
            yield name, lambda path=text, n=name: (Sample(n, read_image(path)), ())  # type: ignore[misc]


def _settings(pairs: Sequence[str], owners: set[str]) -> dict[str, dict[str, str]]:
    """``NAME.KEY=VALUE`` as {NAME: {KEY: VALUE}}; a name that this run does not use is refused."""
    found: dict[str, dict[str, str]] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        owner, _, key = name.rpartition(".")
        if not owner or not key or "=" not in pair:
            raise XaiError(f"--set {pair}: expected NAME.KEY=VALUE, e.g. occlusion.window=16")
        if owner not in owners:
            raise XaiError(f"--set {pair}: {owner!r} is not part of this run; expected one of {', '.join(sorted(owners))}")
        found.setdefault(owner, {})[key] = value
    return found


def _split(values: Sequence[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _severities(text: str) -> tuple[int, ...]:
    parts = _split([text])
    if not parts or any(part not in "12345" or len(part) != 1 for part in parts):
        raise XaiError(f"--severities {text}: expected whole numbers from 1 to 5, e.g. 1,3,5")
    return tuple(sorted({int(part) for part in parts}))


def _number(value: float | None, ci: Sequence[float] | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" [{ci[0]:.3f}, {ci[1]:.3f}]" if ci else "")
