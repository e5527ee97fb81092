"""Several targets of one image by several methods; a pair that is refused stands there with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..adapters import Model, adapted
from ..errors import MethodError, XaiError
from ..targets import Target, bind, expand
from ..types import Attribution, Explanation, Refusal, Sample
from .base import METHODS, Progress, explain_many, parameters


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
    progress: Progress | None = None,
) -> Explanation:
    """All ``targets`` of ``sample.image`` by all ``methods``.

    ``params`` holds {method: {parameter: value}}.  Names and parameters are checked before the first long
    computation.  A pair that the method refuses becomes a ``Refusal``; when nothing is left, the refusal is raised.
    """
    given = params or {}
    entries = [METHODS[method] for method in dict.fromkeys(methods)]
    for entry in entries:
        parameters(entry, given.get(entry.name, {}))
    known = adapted(model)
    prediction = known.predict(sample.image[None])[0]
    wanted = list(dict.fromkeys(str(each) for target in targets for each in expand(target, prediction)))
    for target in wanted:
        bind(target, prediction, sample, truth_classes)
    results: list[Attribution | Refusal] = []
    for entry in entries:
        options: dict[str, Any] = {
            "seed": seed, "sample": sample, "truth_classes": truth_classes, "prediction": prediction, "progress": progress,
            **given.get(entry.name, {}),
        }  # fmt: skip
        try:
            results += explain_many(known, sample.image, wanted, entry.name, **options)
        except MethodError:
            results += [_one(known, sample, target, entry.name, options) for target in wanted]
    refused = [each for each in results if isinstance(each, Refusal)]
    if len(refused) == len(results):
        raise MethodError(refused[0].error)
    image_name = name or sample.id
    return Explanation(
        known.name, image_name, sample.image, prediction, tuple(wanted),
        tuple(entry.name for entry in entries), tuple(results),
    )  # fmt: skip


def _one(model: Model, sample: Sample, target: str, method: str, options: Mapping[str, Any]) -> Attribution | Refusal:
    """One pair alone, after the method refused some target of all of them."""
    try:
        return explain_many(model, sample.image, [target], method, **options)[0]
    except XaiError as error:
        return Refusal(target, method, str(error))
