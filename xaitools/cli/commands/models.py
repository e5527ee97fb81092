"""``xaitools models``."""

from __future__ import annotations

from typing import Any

import click

from ..arguments import in_words
from ..session import Session, common, with_session


@click.command()
@common
@with_session
def command(session: Session, seed: int, device: str) -> None:
    """The zoo: trained models that ship with xaitools, and what they score."""
    from ... import zoo
    from ...report.tables import text_table

    cards = [zoo.card(name) for name in zoo.names()]
    rows = [_model_row(card) for card in cards]
    heads = ["name", "task", "classes", "input", "test data", "score [95 % interval]", "parameters", "MB", "may be passed on"]
    lines = [
        [row["name"], row["task"], str(len(row["classes"])), _input(card), row["data"],
         f"{row['metric']} {in_words(row['score'], card['scores']['test'].get('ci'))}", f"{row['parameters']:,}",
         f"{row['bytes'] / 1e6:.1f}", row["redistribution"]]
        for row, card in zip(rows, cards, strict=True)
    ]  # fmt: skip
    session.result(rows, text_table(heads, lines, left=(0, 1, 3, 4, 5, 8)) if rows else "no model is here")


def _model_row(card: dict[str, Any]) -> dict[str, Any]:
    score = card["scores"]["test"]
    return {
        "name": card["name"], "architecture": card["architecture"], "task": card["task"], "classes": card["classes"],
        "data": card["data"]["test"].replace("{data}/", ""), "metric": score["metric"], "score": score["value"],
        "parameters": card["weights"]["parameters"], "bytes": card["weights"]["bytes"], "redistribution": card["data"]["redistribution"],
        "input_size": card.get("input", {}).get("size"),
    }  # fmt: skip


def _input(card: dict[str, Any]) -> str:
    """What the network is fed: a size, a shorter side, or the image as it is."""
    size, side = card.get("input", {}).get("size"), card.get("network", {}).get("side")
    return f"{size[0]} x {size[1]}" if size else f"side {side}" if side else "as it is"
