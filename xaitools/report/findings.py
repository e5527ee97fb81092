"""The findings of an audit: one card for each cue family, what stands beside the objects, and a section for a model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..audit.spots import FEWEST, FEWEST_THERE
from ..metrics.error_rates import EXCLUDED
from .parts import Facts, e, interval, points, points_interval, section, table, value

LOOKS = {"relies": "relies", "undecided": "open", "no evidence": "none"}
"""Of the cards, in the order in which they stand."""

READING = (
    "A verdict joins two kinds of evidence. The intervention is what is lost when this cue alone says something else; the attribution is "
    "how much of the relevance of decisions lies where the cue is. Both must lie above their thresholds with their whole 95 % "
    f"interval; where the loss is surely below {points(EXCLUDED)} points, or the attribution below its threshold, there is no evidence; "
    "anything else is undecided. The report says what a model relies on, "
    "not that this is wrong: a cue may be what makes the class."
)


def findings_section(report: Facts) -> str:
    """Empty where the report is none of an audit."""
    if "findings" not in report:
        return ""
    order = sorted(report["findings"], key=lambda row: list(LOOKS).index(row["verdict"]))
    cards = "".join(map(_card, order))
    reading = f"<p><small>{READING} {errors_text(report['error_rates'])}</small></p>"
    return section("Findings", _lead(report["findings"]), f'<div class="cards">{cards}</div>', reading)


def _lead(findings: Sequence[Facts]) -> str:
    found = [f"<b>{e(row['shortcut'])}</b>{' (declared legitimate)' * row['declared']}" for row in findings if row["verdict"] == "relies"]
    undecided = [e(row["shortcut"]) for row in findings if row["verdict"] == "undecided"]
    words = f"The model relies on {' and '.join(found)}." if found else "No cue was found that the model relies on."
    words += f" Undecided: {', '.join(undecided)}." if undecided else ""
    return f'<p class="lead">{words}</p>'


def _card(row: Facts) -> str:
    strength = "" if row["strength"] is None else f"<b>{points(row['strength'])} points</b> {points_interval(row['ci'])}"
    allowed = " · declared legitimate" if row["declared"] else ""
    heads = ["", "evidence", "measured", "threshold", "images"]
    rows = [
        [e(each["kind"]), e(each["says"]), *(_number(each) if "threshold" in each else ("", "", ""))]
        for each in row["evidence"]
    ]  # fmt: skip
    return (
        f'<article class="card {LOOKS[row["verdict"]]}"><p class="verdict">{e(row["verdict"])}{e(allowed)}</p>'
        f"<h3>{e(row['shortcut'])}</h3><p>{e(row['about'])}</p><p>{strength}</p><p><small>{e(undecided_why(row))}</small></p>"
        f"<details{' open' if row['verdict'] == 'relies' else ''}><summary>Evidence, and what would refute it</summary>"
        f"{table(heads, rows, right={2, 3, 4})}<p><small>Would refute it: {e(row['would_refute'])}.</small></p></details></article>"
    )


def undecided_why(row: Facts) -> str:
    """What stands in the way of a verdict, "" where that is the interval alone."""
    if row["verdict"] != "undecided":
        return ""
    return row["doubt"] or (row["evidence"][0]["says"] if row["ci"] is None else "")


def _number(each: Facts) -> tuple[str, str, str]:
    return f"{value(each['value'])}<br><small>{interval(each['ci'])}</small>", f"{each['threshold']:g}", str(each["n"])


def errors_text(rates: Facts) -> str:
    """How often the audit was wrong on models of which it is known what they rely on."""
    false, missed = _errors(rates["models"])
    own = ""
    if "shipped" in rates:  # reports of before have none
        alarms, misses = _errors(rates["shipped"])
        own = (
            f"; with the threshold used here, {points(rates['shipped']['threshold'])} points, in {alarms['count']} and in {misses['count']}"
        )
    return (
        f"Tried on {rates['n']} small models of {len(rates['architectures'])} architectures, trained on drawn scenes, of which it is known "
        f"what they rely on, with thresholds chosen on others, the audit was wrong in {_of(false)} honest ones (it found a "
        f"cue) and in {_of(missed)} that lose {points(rates['strong'])} points or more without their cue (it did not find it){own}. "
        "On other models and data it may err more often."
    )


def _errors(models: Facts) -> tuple[Facts, Facts]:
    """The shares of false alarms and of misses."""
    found = models["planted"]
    spread = found["ci"] and [1 - end for end in found["ci"][::-1]]
    return models["honest"], {"count": found["n"] - found["count"], "n": found["n"], "ci": spread}


def _of(share: Facts) -> str:
    spread = "" if share["ci"] is None else f" [{100 * share['ci'][0]:.0f} to {100 * share['ci'][1]:.0f} %]"
    return f"{share['count']} of {share['n']}{spread}"


def spots_section(report: Facts) -> str:
    """What the spots of each class do; empty where the report is none of an audit."""
    if "spots" not in report:
        return ""
    facts = report["spots"]
    few = ", ".join(f"{e(name)} ({count})" for name, count in facts["few"].items())
    few = few and f"<p><small>Not judged, with fewer than {FEWEST} images that have such a place: {few}.</small></p>"
    if not facts["classes"]:
        note = facts["note"] or ("" if few else "no place beside the objects speaks for a class")
        return section("Beside the objects", f"<p><small>Not measured: {e(note)}.</small></p>" if note else "", few)
    said = (
        f"What beside the objects decides in each of {e(facts['n'])} images: of the windows with most relevance ({e(facts['method'])}) "
        "those that take most of the class with them when painted over, and of these the one that brings most of it to some images of "
        f"other classes. Where {FEWEST_THERE} or more bring any, those are judged, on further images, and the rest left out. Painted over: "
        "how much less of the class is seen than with as much painted over elsewhere. Moved: how much more of it is seen in images of "
        "other classes than with the same place of another image of their own class. In points; bold where the interval leaves out 0."
    )
    heads = ["class", "judged", "relevance there", "of the area", "painted over", "moved", "in one place"]
    rows = [
        [e(name), f"{e(row.get('judged', row['n']))} of {e(row['n'])}", f"{100 * row['mass']:.0f} %", f"{100 * row['chance']:.0f} %",
         _effect(row["removed"]), _effect(row["moved"]), f"{100 * row['place']['share']:.0f} %"]
        for name, row in facts["classes"].items()
    ]  # fmt: skip
    return section("Beside the objects", f"<p>{said}</p>", table(heads, rows, right={1, 2, 3, 4, 5, 6}), few)


def _effect(found: Facts | None) -> str:
    if found is None or found["value"] is None:
        return "<small>not moved</small>"
    sure = found["ci"] is not None and not found["ci"][0] <= 0 <= found["ci"][1]
    shown = points(found["value"])
    return f"{f'<b>{shown}</b>' if sure else shown}<br><small>{points_interval(found['ci'])}</small>"


def model_card(report: Facts) -> str:
    """A section in Markdown for the card of the model."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Facts) -> Iterator[str]:
    yield "## Shortcuts"
    yield ""
    clean = report["clean"]
    spread = "" if clean["ci"] is None else f" [{clean['ci'][0]:.3f}, {clean['ci'][1]:.3f}]"
    worth = "undefined" if clean["value"] is None else f"{clean['value']:.3f}{spread}"
    tool = f"xaitools {_plain(report['versions']['xaitools'])}"
    yield f"Audited with {tool} on {_plain(report['dataset'])} ({report['n']} images; {report['metric']} {worth})."
    yield ""
    yield "| cue | verdict | strength, points | 95 % interval |"
    yield "|---|---|---|---|"
    for row in report["findings"]:
        low_high = "" if row["ci"] is None else f"{100 * row['ci'][0]:z.1f} to {100 * row['ci'][1]:z.1f}"
        strength = "" if row["strength"] is None else f"{100 * row['strength']:z.1f}"
        yield f"| {row['shortcut']} | {row['verdict']}{' (declared legitimate)' if row['declared'] else ''} | {strength} | {low_high} |"
    yield ""
    yield errors_text(report["error_rates"])


def _plain(text: str) -> str:
    """Without what Markdown would take for markup."""
    return "".join(f"\\{each}" if each in "\\`*_{}[]<>|#" else each for each in str(text))
