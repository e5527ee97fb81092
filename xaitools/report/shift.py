"""What a change did to the explanation, as a table beside the drops: shares of relevance before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..audit.shift import PARTS
from ..probes import CUES
from .parts import Facts, e, items, points, points_interval, section, table

WIDTH, BAR = 200, 11
"""Of a pair of bars, in CSS pixels."""

ORDER = ("object", "artefact", "context")
"""From left to right in a bar."""

KEY = "<span class='keys'>" + " ".join(f'<span class="key part-{part}"></span>{part}' for part in ORDER) + "</span>"


def shift_section(report: Facts) -> str:
    """Empty where the report is of a version that did not ask."""
    facts = report.get("relevance")
    if facts is None:
        return ""
    notes = f"<ul class='notes'>{items(facts['notes'])}</ul>" if facts["notes"] else ""
    rows = list(_rows(report))
    if not rows:
        return section("What changed in the explanation", notes or "<p><small>Not measured.</small></p>")
    said = (
        f"Where the relevance ({e(facts['method'])}) of one and the same decision lies before (upper bar) and after (lower bar): the "
        "margin of the class that the image is about over all other classes, at its own objects. Shares are means over the images, "
        "in percent; below them the change in points with its 95 % interval, bold where that leaves out 0. The tick is the object's "
        "share of the image: relevance dealt out at random would reach so far. Few images may have an artefact; its column is of these "
        "alone, and its bar counts the others as 0. Under the name stands in how many images the margin is above 0, before and after."
    )
    heads = ["probe", "drop, points", KEY, *PARTS, "images"]
    return section("What changed in the explanation", f"<p>{said}</p>", table(heads, rows, right={1, 3, 4, 5, 6}), notes)


def _rows(report: Facts) -> Iterator[Sequence[str] | str]:
    named = {name: row for name, row in report["probes"].items() if "relevance" in row}
    groups = {
        "Cues: each can be a shortcut": {name: row for name, row in named.items() if row["family"] in CUES},
        "Robustness": {name: row for name, row in named.items() if row["family"] not in CUES},
        "Controls: as much moves by itself": {name: row for name, row in report["controls"].items() if "relevance" in row},
    }
    for heading, members in groups.items():
        if members:
            yield heading
            yield from (_row(name, row) for name, row in members.items())


def _row(name: str, row: Facts) -> list[str]:
    found = row["relevance"]
    drop = row["primary"]["drop"] if "primary" in row else row["drop"]
    undefined = f"<br><small>{found['undefined']} undefined</small>" if found["undefined"] else ""
    above = [found["margin"][side]["above_0"] for side in ("before", "after")]
    decided = f"<br><small>margin above 0: {above[0]}\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}{above[1]}</small>" if found["n"] else ""
    return [f"{e(name)}{decided}", points(drop), bars(found), *(_part(found, part) for part in PARTS), f"{found['n']}{undefined}"]


def _part(found: Facts, part: str) -> str:
    before, after, change = found["before"][part], found["after"][part], found["change"][part]
    if before is None or after is None:
        return "<small>none</small>"
    moved = f"{'+' if change['value'] > 0 else ''}{points(change['value'])}"
    sure = change["ci"] is not None and not change["ci"][0] <= 0 <= change["ci"][1]
    few = f" on {change['n']}" if change["n"] < found["n"] else ""
    shown = f"<b>{moved}</b>" if sure else moved
    return f"{100 * before:.0f} → {100 * after:.0f}<br><small>{shown} {points_interval(change['ci'])}{few}</small>"


def bars(found: Facts) -> str:
    """Before above after.  What neither object nor context has is the artefact's, 0 in images without one."""
    marks, words = "", []
    for line, side in enumerate(("before", "after")):
        shares = found[side]
        if not found["n"]:
            return "<small>no image could be used</small>"
        if shares["object"] is None or shares["context"] is None:
            return "<small>nobody says where the object is</small>"
        widths = {"object": shares["object"], "context": shares["context"]}
        widths["artefact"] = max(0.0, 1 - sum(widths.values()))
        x, y = 0.0, 1 + line * (BAR + 3)
        for part in ORDER:
            marks += f'<rect class="part-{part}" x="{x:.1f}" y="{y}" width="{WIDTH * widths[part]:.1f}" height="{BAR}"/>'
            x += WIDTH * widths[part]
        tick = WIDTH * found["chance"][side]["object"]
        marks += f'<line class="chance" x1="{tick:.1f}" x2="{tick:.1f}" y1="{y - 1}" y2="{y + BAR + 1}"/>'
        words.append(f"{side}: " + ", ".join(f"{part} {100 * widths[part]:.0f} %" for part in ORDER))
    height = 2 * BAR + 5
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'<svg {size} role="img" aria-label="{e("; ".join(words))}">{marks}</svg>'
