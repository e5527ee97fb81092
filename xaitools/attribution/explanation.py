"""Several targets of one image by several methods; a pair that is refused stands there with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapters import Model, adapted
from ..data import Dataset
from ..errors import MethodError, XaiError
from ..targets import Target, bind, expand
from ..types import Attribution, Explanation, Refusal, Sample
from .base import METHODS, Progress, explain_many, parameters


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a method was at work; ``done`` is what was given before, never a map of half its windows: see ``unfinished``."""

    def __init__(self, done: Explanation) -> None:
        super().__init__()
        self.done = done


def explain_image(
    model: Model,
    sample: Sample,
    targets: Sequence[str | Target],
    methods: Sequence[str],
    *,
    name: str = "",
    seed: int = 0,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    truth_classes: Sequence[str] = (),
    data: Dataset | None = None,
    progress: Progress | None = None,
    unfinished: Path | None = None,
) -> Explanation:
    """All ``targets`` of ``sample.image`` by all ``methods``.

    ``params`` holds {method: {parameter: value}}.  Names and parameters are checked before the first long
    computation.  A pair that the method refuses becomes a ``Refusal``; when nothing is left, the refusal is raised.
    ``truth_classes``, ``data`` and ``unfinished`` are those of ``explain_many``.  Ctrl-C raises ``Interrupted`` once there is a
    map, of the first method too where it takes the targets one by one.
    """
    given = params or {}
    entries = [METHODS[method] for method in dict.fromkeys(methods)]
    for entry in entries:
        parameters(entry, given.get(entry.name, {}))
    known = adapted(model)
    prediction = known.predict(sample.image[None])[0]
    truth_classes = truth_classes or (data.semantic_classes if data is not None else ())
    wanted = list(dict.fromkeys(str(each) for target in targets for each in expand(target, prediction)))
    for target in wanted:
        bind(target, prediction, sample, truth_classes)
    results: dict[str, list[Attribution | Refusal]] = {}

    def explanation() -> Explanation:
        pairs = tuple(each for rows in results.values() for each in rows)
        return Explanation(known.name, name or sample.id, sample.image, prediction, tuple(wanted), tuple(results), pairs)

    for entry in entries:
        options: dict[str, Any] = {
            "seed": seed, "sample": sample, "truth_classes": truth_classes, "data": data, "prediction": prediction,
            "progress": progress, "unfinished": unfinished, **given.get(entry.name, {}),
        }  # fmt: skip
        rows: list[Attribution | Refusal] = []
        try:
            for each in _all(known, sample, wanted, entry.name, options):
                rows.append(each)
                results[entry.name] = rows
        except KeyboardInterrupt:
            if not results:
                raise
            raise Interrupted(explanation()) from None
    refused = [each for rows in results.values() for each in rows]
    if all(isinstance(each, Refusal) for each in refused):
        raise MethodError(next(each.error for each in refused if isinstance(each, Refusal)))
    return explanation()


def _all(model: Model, sample: Sample, targets: Sequence[str], method: str, options: Mapping[str, Any]) -> Iterator[Attribution | Refusal]:
    try:
        yield from explain_many(model, sample.image, targets, method, **options)
    except MethodError:
        for target in targets:
            yield _one(model, sample, target, method, options)


def _one(model: Model, sample: Sample, target: str, method: str, options: Mapping[str, Any]) -> Attribution | Refusal:
    """One pair alone, after the method refused some target of all of them."""
    try:
        return explain_many(model, sample.image, [target], method, **options)[0]
    except XaiError as error:
        return Refusal(target, method, str(error))
