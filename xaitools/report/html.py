"""The report of a probe run: report.json, one self-contained page, and the figures.

The page holds its style and pictures, loads nothing, runs no script, and escapes every word that came from outside.
Nothing in it depends on time, host or path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..audit.attacks import STEP, curve
from ..audit.folder import RECORDS, RUN, check_saved
from ..audit.records import parquet_bytes
from ..audit.remote import workplace
from ..audit.spray import Criteria
from ..files import folder_name, write_bytes, write_json, write_text
from ..metrics.coverage import coverage_in_words
from ..probes import CUES
from ..types import ProbeResult
from .counterfactual import counterfactual_section
from .findings import findings_section, model_card, spots_section
from .gains import GAIN, gains_words
from .page import figure_bytes
from .parts import (
    Facts,
    axis,
    data_uri,
    document,
    e,
    interval,
    items,
    p_value,
    plot,
    points,
    points_interval,
    scale_of,
    section,
    table,
    title,
    value,
    warnings,
)  # fmt: skip
from .probe_figures import drops_figure, examples_figure
from .shift import shift_section
from .spray import reliance_section, spray_figure, spray_section

MOST = 14 * 2**20
"""Characters of pictures in one page; what does not fit is in the figures folder only."""

CONTROLS = {
    "identity": "nothing was changed: must be exactly 0",
    "reencode": "written as JPEG of quality 95 and read again",
    "resize": "enlarged by half and reduced again",
    "self_paste": "objects pasted where they are, before their own background painted over",
    "same_class_paste": "objects pasted before another background of their class",
    "random_direction": "noise as large as the attack's, in a random direction",
    "random_l2": "Gaussian noise of the attack's L2 norm, in a random direction",
    "shuffled_patch": "the attack's patch at its place, its pixels in random order",
}


def write_report(results: Mapping[str, ProbeResult], out: str | Path) -> list[Path | str]:
    """The reports of ``probe_models``: one in ``out`` itself, several in a folder each with a comparison above."""
    from .comparison import save_comparison

    if len(results) == 1:
        return save_probe(next(iter(results.values())), out)

    def allowed(root: Path) -> None:
        for name, result in results.items():
            check_saved(root / name, result.run)

    with workplace(out, allowed) as place:
        assert place.folder is not None
        written = [path for name, result in results.items() for path in _save(result, place.folder / name, images=True)]
        return [place.named(path) for path in written + save_comparison(results, place.folder)]


def save_probe(result: ProbeResult, out: str | Path, *, images: bool = True) -> list[Path | str]:
    """Writes report.json, report.html and figures/*.png into ``out``, and records and run.json if no run wrote them there; of an audit
    also model-card.md.  Without ``images`` there are no figures.  Gives their paths, or their URIs where ``out`` is one.

    Raises PlanError where ``out`` holds anything else.
    """
    with workplace(out, lambda folder: check_saved(folder, result.run)) as place:
        assert place.folder is not None
        return [place.named(path) for path in _save(result, place.folder, images)]


def _save(result: ProbeResult, folder: Path, images: bool) -> list[Path]:
    if not (folder / RUN).exists():
        write_json(folder / RUN, result.run)
        write_bytes(folder / RECORDS / "all.parquet", parquet_bytes(result.records))
    figures = dict(_figures(result)) if images else {}
    for name, png in figures.items():
        write_bytes(folder / "figures" / f"{name}.png", png)
    write_text(folder / "report.html", page(result.report, figures))
    write_json(folder / "report.json", result.report)
    card = [folder / "model-card.md"] if "findings" in result.report else []
    for path in card:
        write_text(path, model_card(result.report))
    return [folder / "report.json", folder / "report.html", *card, *(folder / "figures" / f"{name}.png" for name in figures)]


def _figures(result: ProbeResult) -> Iterator[tuple[str, bytes]]:
    yield "drops", figure_bytes(drops_figure(result.report), "png")
    for name in result.report["probes"]:
        if examples := [each for each in result.examples if each.probe == name]:
            yield name, figure_bytes(examples_figure(examples), "png")
    for name, facts in result.report.get("spray", {}).items():
        if len(facts["clusters"]) > 1 or any(each["suspicious"] for each in facts["clusters"]):
            yield _cluster(name), figure_bytes(spray_figure(name, facts), "png")


def page(report: Facts, figures: Mapping[str, bytes]) -> str:
    """report.html; ``figures`` are PNG files by the name of their probe."""
    pictures, left = {}, MOST
    for name in (name for name in report["probes"] if name in figures):
        found = data_uri(figures[name])
        pictures[name] = found if len(found) <= left else ""
        left -= len(pictures[name])
    body = [
        title("audit" if "findings" in report else "shortcut probes", report["model"], report["dataset"]),
        _summary(report),
        findings_section(report),
        warnings(report["warnings"]),
        spots_section(report),
        *_decisions(report, figures),
        counterfactual_section(report.get("counterfactual", {"rows": [], "note": ""})),
        _headline(report),
        _families(report),
        _groups(report),
        shift_section(report),
        _controls(report),
        *(_probe(name, row, report, pictures.get(name)) for name, row in report["probes"].items()),
        _reading(e(report["metric"]), report["intervals"]),
        _skipped(report["skipped"]),
        _settings(report),
    ]
    return document(f"{report['model']}: {'audit' if 'findings' in report else 'shortcut probes'}", body)


def _decisions(report: Facts, figures: Mapping[str, bytes]) -> Iterator[str]:
    """Of an audit, the clusters of decisions and what these rest on."""
    if "spray" in report:
        pictures = {name: [figures[_cluster(name)]] for name in report["spray"] if _cluster(name) in figures}
        told = report["decisions"]
        note = told["note"] or f"{told['n']} decisions, {told['method']}"
        yield spray_section(report["spray"], Criteria().words, report["transplants"], note, pictures)
        yield reliance_section(report["reliance"])


def _cluster(name: str) -> str:
    return f"spray-{folder_name(name)}"


def _summary(report: Facts) -> str:
    clean = report["clean"]
    words = f"On {report['n']} unchanged images {e(report['metric'])} is <b>{value(clean['value'])}</b>{_spaced(interval(clean['ci']))}. "
    words += _coverage(report["intervals"])
    drops = {name: row["primary"] for name, row in report["probes"].items() if row["family"] in CUES and row["primary"]["drop"] is not None}
    if drops and "findings" not in report:  # of an audit the findings say more
        name = max(drops, key=lambda each: drops[each]["drop"])
        family, spread = report["probes"][name]["family"], drops[name]["ci"] or drops[name].get("range")
        words += f" Of the cues that can be shortcuts, <b>{e(family)}</b> ({e(name)}) costs most: "
        words += f"<b>{points(drops[name]['drop'])} points</b>{_spaced(_spread(drops[name]))}"
        words += "." if spread is not None and spread[0] > 0 else ", which cannot be told from nothing."
    return f'<p class="lead">{words}</p>'


def _coverage(made: Facts) -> str:
    """How often such intervals hold the truth."""
    units = f"{e(made['units'])} {e(made['unit'])}s"
    if made["coverage"] is None:
        return f"There are only {units}: in place of intervals stand ranges over them."
    scope = f"; of {e(made['scope'])}" if "scope" in made else ""
    return f"<small>(95 % intervals{scope}; measured coverage at {units}: {coverage_in_words(made)})</small>"


def _spread(found: Facts) -> str:
    """The interval in points, or the range over clusters where there is none."""
    return f"range {points_interval(found['range'])}" if found.get("range") is not None else points_interval(found["ci"])


def _spaced(text: str) -> str:
    return f" {text}" if text else ""


def _headline(report: Facts) -> str:
    scale = scale_of(row["primary"] for row in report["probes"].values())
    rows: list[Sequence[str] | str] = []
    for heading, look in (("Cues: each can be a shortcut", "cue"), ("Robustness: how fragile, not why", "other")):
        drops = {name: row for name, row in report["probes"].items() if "measure" not in row}
        members = {name: row for name, row in drops.items() if (row["family"] in CUES) is (look == "cue")}
        rows += [heading] if members else []
        rows += [_headline_row(name, row, plot(row["primary"], scale, look)) for name, row in members.items()]
    heads = ["family", "probe", f"{e(report['metric'])}<br>reference", "drop, points", axis(scale), "p", "images"]
    return section("Drops", table(heads, rows, right={2, 3, 5, 6}))


def _headline_row(name: str, row: Facts, drawn: str) -> list[str]:
    primary, reference = row["primary"], row["reference"]
    return [
        e(row["family"]),
        f'<a href="#{_anchor(name)}">{e(name)}</a><br><small>{_at(row)}against {e(reference["name"])}</small>',
        f"{value(primary['value'])}<br><small>{value(reference['value'])}</small>",
        f"<b>{points(primary['drop'])}</b><br><small>{_spread(primary)}</small>",
        f"{drawn}<small>{e(primary['says'])}</small>",
        p_value(primary["p"]),
        e(row["n"]),
    ]


def _families(report: Facts) -> str:
    """The declared number of each family, as it stands beside the other families and the other cells of its own."""
    rows = [
        [
            e(name),
            e(row["probe"]),
            f"<b>{points(row['drop'])}</b>",
            points_interval(row["band"]),
            p_value(row["p_holm"]),
            e(row["says"] or ""),
        ]
        for name, row in report["families"].items()
    ]
    said = "<p>One probe, declared before the run, stands for each family, so that nobody takes the largest of several drops for it.</p>"
    heads = ["family", "probe", "drop, points", "band of the family", "p, Holm", ""]
    return section("One number for each family", said, table(heads, rows, right={2, 3, 4}))


def _groups(report: Facts) -> str:
    """The clean metric of each group, and which group each probe costs most."""
    if "groups" not in report:
        return ""
    found = report["groups"]
    rows = [
        [e(name) + " (few)" * row["small"], value(row["value"]), interval(row["ci"]), e(row["n"])]
        for name, row in found["per_group"].items()
    ]
    lines: list[Sequence[str] | str] = ["Unchanged images", *rows, "Where a probe costs most"]
    for name, row in report["probes"].items():
        if (worst := row["worst"]) is not None:
            group = row["groups"][worst]
            lines.append([f"{e(name)}: {e(worst)}{' (few)' * group['small']}", points(group["drop"]), _spread(group), e(group["n"])])
    said = f"<p>{e(report['metric'])} of each group; below it the drop in points of the group that each probe costs most."
    said += (
        f" The worst group is <b>{e(found['worst'])}</b>, {value(found['gap'])} below the best.</p>" if found["gap"] is not None else "</p>"
    )
    return section("Groups", said, table(["group", "", "", "images"], lines, right={1, 2, 3}))


def _controls(report: Facts) -> str:
    rows = [
        [e(name), e(CONTROLS.get(name, "")), f"<b>{points(row['drop'])}</b>", _spread(row), e(row["n"])]
        for name, row in report["controls"].items()
    ]
    said = "<p>Changes that should cost nothing, or less than what they control.</p>"
    return section("Controls", said, table(["control", "what it is", "drop, points", "", "images"], rows, right={2, 3, 4}))


def _probe(name: str, row: Facts, report: Facts, picture: str | None) -> str:
    metric = report["metric"]
    means = {key: number for key, number in row.get("measured", {}).items() if not key.startswith((GAIN, STEP))}
    measured = [f"mean {key.replace('_', ' ')}: {number:.4g}" for key, number in means.items()]
    cells = [
        [str(each["severity"]), value(each["value"]), points(each["drop"]), _spread(each), points_interval(each["band"])]
        for each in row["severities"]
    ]
    severities = table(["severity", e(metric), "drop, points", "", "band"], cells, right={1, 2, 3, 4}) if len(cells) > 1 else ""
    classes = sorted(((drop, each) for each, drop in row["per_class"].items() if drop is not None), key=lambda pair: (-pair[0], pair[1]))
    spread = row.get("per_class_ci", {})
    lines = table(
        ["class", "drop, points", ""], [[e(each), points(drop), points_interval(spread.get(each))] for drop, each in classes], right={1, 2}
    )
    said = "Each interval speaks of its class alone: of twenty about one misses the truth."
    alone = f"<p><small>{said}</small></p>" if any(spread.values()) else ""
    per_class = f"<details><summary>Drop of each class</summary>{lines}{alone}</details>" if classes else ""
    missing = f"Pictures that did not fit into this page: figures/{name}.png" if picture == "" else "No example pictures."
    image = f'<img alt="{e(name)}: before and after" src="{picture}">' if picture else f"<p><small>{e(missing)}</small></p>"
    return section(
        f"{row['family']}: {name}",
        f"<p>{e(row['about'])}</p><ul class='notes'>{items([*row['notes'], *measured])}</ul>",
        _means(row, metric),
        gains_words(row.get("gains", ()), report["task"]),
        f"<div class='pair'>{severities}{per_class}</div>{_curve(curve(row.get('measured', {})))}{image}",
        anchor=_anchor(name),
    )


def _curve(losses: Sequence[float]) -> str:
    """The mean loss of an attack over its steps, as a line; nothing where one step was made."""
    if len(losses) < 3:
        return ""
    width, height, low, high = 300, 60, min(losses), max(losses)
    across, down = (width - 8) / (len(losses) - 1), (height - 8) / ((high - low) or 1)
    places = [(4 + across * step, 4 + down * (high - loss)) for step, loss in enumerate(losses)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8" fill="#0369a1"/>' for x, y in places)
    return (
        f"<p><small>Mean loss over {len(losses) - 1} steps of the first start, from {losses[0]:.4g} to {losses[-1]:.4g}; an attack that "
        f'works climbs and levels off.</small><br><svg width="{width}" height="{height}" role="img" aria-label="loss over steps">'
        f'<polyline points="{line}" fill="none" stroke="#0369a1" stroke-width="1.4"/>{dots}</svg></p>'
    )


def _means(row: Facts, metric: str) -> str:
    """Of a probe that stands for several: its means, and what each member costs."""
    if "means" not in row:
        return ""
    means = [[e(name.replace("_", " ")), value(each["value"]), interval(each["ci"])] for name, each in row["means"].items()]
    if "members" not in row:
        return table(["", "value", ""], means, right={1, 2})
    members = [
        [e(name), value(each["value"]), points(each["drop"]), _spread(each), points_interval(each["band"])]
        for name, each in row["members"].items()
    ]
    said = "<p><b>mPC</b> is the mean over the members of their means over the severities, <b>rPC</b> its share of the clean value.</p>"
    said = "" if "measure" in row else said
    lines = table(["member", e(metric), "drop, points", "", "band"], members, right={1, 2, 3, 4})
    costs = f"<details><summary>What each member costs</summary>{lines}</details>"
    return f"{said}<div class='pair'>{table(['', 'value', ''], means, right={1, 2})}{costs}</div>"


def _reading(metric: str, made: Facts) -> str:
    margin, unit = f"{100 * made['margin']:g} points", made["unit"]
    points = (
        f"<b>Drop</b> = {metric} on reference images minus {metric} on changed ones, of the same images, in points (hundredths). "
        "More is worse. The reference is the unchanged image unless the table says otherwise; its value is the small number.",
        f"<b>[low, high]</b> is a 95 % interval of one number alone, from a paired bootstrap ({made['method']}): whole {unit}s are drawn, "
        f"the same for both sides. It covers the choice of {unit}s, not another training of the model. How often such intervals held the "
        "truth was measured on simulated samples of images with balanced, with rare and with clustered classes.",
        "A <b>band</b> is wider: all bands of a family hold their drops together in 95 % of samples, however many cells are looked at.",
        "<b>p</b> is two-sided and of one probe alone; among several the smallest is small by chance more often. <b>Holm</b>'s is of the "
        "one number that was declared for the family, and stands beside those of the other families.",
        f"<b>No drop beyond {margin}</b>: the 90 % interval lies within {margin} of 0 on both sides, so that two one-sided tests at 5 % "
        "rule out more. <b>A drop</b>: the 95 % interval lies above 0. <b>Undecided</b>: so many images do not tell.",
        "<b>A drop says that the change hurts, not why</b>: fog also hides objects. A cue is a shortcut when the model leans on it "
        "although the task can be solved without. An interval around 0 says only that so many images showed nothing.",
        "The <b>background gap</b> compares the same objects before two kinds of background, both pasted, so traces of pasting cancel.",
        "An <b>attack</b> shows that so small a change can break the model; one that fails shows nothing.",
        "In the pictures <b>worst</b> are the images that lost most, <b>typical</b> is the one in the middle and <b>best</b> the one "
        "that lost least. "
        "They illustrate; the table decides. Boxes with a score below 0.5 are not drawn.",
    )
    return section("How to read this", f"<ul>{''.join(f'<li>{each}</li>' for each in points)}</ul>")


def _skipped(skipped: Sequence[Facts]) -> str:
    if not skipped:
        return ""
    groups: dict[tuple[str, str], list[str]] = {}
    for each in skipped:
        groups.setdefault((each.get("condition", "all"), each["reason"]), []).append(each["id"])
    rows = [
        [e(where), e(reason), str(len(ids)), f"<small>{e(', '.join(ids[:12]))}{', ...' if len(ids) > 12 else ''}</small>"]
        for (where, reason), ids in groups.items()
    ]
    return section("Left out", table(["condition", "reason", "images", "which"], rows, right={2}))


def _settings(report: Facts) -> str:
    rows = [
        [e(name), e(", ".join(f"{key} {_setting(key, each)}" for key, each in values.items()))] for name, values in report["params"].items()
    ]
    libraries = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    small = f"task {e(report['task'])} · seed {e(report['seed'])} · {e(libraries)}<br>plan {e(report['plan'])}"
    return section("Settings", table(["probe", "parameters"], rows), f"<p><small>{small}</small></p>")


def _setting(name: str, setting: Any) -> str:
    if setting is None:
        return "by severity" if name == "eps" else "none"
    return "this dataset" if name == "donors" and not setting else str(setting)


def _at(row: Facts) -> str:
    if "members" in row:
        steps = [str(each["severity"]) for each in row["severities"]]
        return f"mean over severit{'y' if len(steps) == 1 else 'ies'} {', '.join(steps)} "
    return f"severity {row['primary']['severity']} " if row["degrees"] else ""


def _anchor(name: str) -> str:
    return "probe-" + "".join(each if each.isalnum() else "-" for each in name)
