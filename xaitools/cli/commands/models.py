"""``xaitools models``."""

from __future__ import annotations

from typing import Any

import click

from ..session import Session, common, with_session


@click.command()
@common
@with_session
def command(session: Session, seed: int, device: str) -> None:
    """The zoo: trained models that ship with xaitools, and what they score."""
    from ... import zoo

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
