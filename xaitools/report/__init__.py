"""Figures and files as functions of results; see figures.py, store.py and html.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..types import Activations, Attribution, Explanation, ProbeResult, Refusal

Result = Activations | Attribution | Explanation | ProbeResult | Sequence[Attribution | Refusal] | Sequence[Explanation]


def save(result: Result, out: str | Path) -> Sequence[Path | str]:
    """Writes the files of ``result`` into the folder ``out`` and gives their paths; see the README for their layout.

    A probe's or an audit's go to an object store, too, where ``out`` is s3://BUCKET/PREFIX or another URI.

    Raises PlanError when ``out`` holds anything else.
    """
    if isinstance(result, ProbeResult):
        from .html import save_probe

        return save_probe(result, out)
    if isinstance(result, Activations):
        from .activations import save_activations

        return save_activations(result, out)
    from .store import explanations_of, save_explanations

    return save_explanations(explanations_of(result), out)[1]
