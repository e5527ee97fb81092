"""What an audit of few images leaves behind: real decisions, clusters and a transplant; findings by hand, since those take minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import xaitools as xt
from xaitools.audit.decisions import measure_decisions
from xaitools.audit.records import Folder
from xaitools.audit.spray import Criteria, spray
from xaitools.audit.transplant import transplant
from xaitools.audit.verdict import ERRORS
from xaitools.files import read_json, write_json
from xaitools.probes import Context

MODEL, DATA = "unet-scenes-tag", "scenes:test?n=24&shortcut=tag&prevalence=1&others=0"
EVIDENCE = [
    {"kind": "intervention", "says": "what is lost <b>", "value": 0.25, "ci": [0.2, 0.3], "threshold": 0.1, "n": 24},
    {"kind": "further", "says": "artifact.paste costs 55.1 points"},
]
FINDINGS = [
    {"shortcut": name, "about": f"about {name}", "verdict": verdict, "declared": False, "strength": strength, "ci": ci,
     "evidence": EVIDENCE, "doubt": doubt, "would_refute": "a control that costs as much"}
    for name, verdict, strength, ci, doubt in [
        ("domain", "no evidence", None, None, ""), ("artifact", "relies", 0.515, [0.358, 0.668], ""),
        ("pose", "undecided", None, None, ""), ("texture", "undecided", 0.2, [0.1, 0.3], "what changes <i> changes light too"),
    ]
]  # fmt: skip
FELL = {"explained": "arrow", "removed": "drop", "fall": 0.5, "ci": [0.1, 0.9], "found": 0.25, "control": 0.1, "beyond": 0.4,
        "beyond_ci": [0.0, 0.8], "images": 4, "objects": 5, "undefined": 0}  # fmt: skip


def leave(out: Path) -> None:
    """Writes the folder ``out``."""
    context = Context(xt.load_dataset(DATA), xt.load_model(MODEL))
    decisions = measure_decisions(context, range(24), Folder(out, "plan"), method="gradient-x-input")
    two = tuple(each for each in decisions.made if decisions.classes[each.label] in ("arrow", "moon"))
    found = spray(replace(decisions, made=two), criteria=Criteria(fewest=4, subsets=1))
    cluster = found["arrow"]["clusters"][0]
    cluster["suspicious"] = True
    moved = transplant(context, decisions, "arrow", cluster, most=3)[0]
    write_json(out / "run.json", {"identity": "plan"})
    report = {
        "model": MODEL, "dataset": DATA, "task": "segmentation", "n": 24, "metric": "mIoU", "clean": {"value": 0.9, "ci": [0.8, 0.95]},
        "probes": {}, "versions": {}, "warnings": ["few images"], "seed": 0, "findings": FINDINGS, "error_rates": read_json(ERRORS),
        "spray": found, "transplants": {"arrow": [moved]}, "decisions": {"method": "gradient-x-input", "note": "", "n": 24},
        "counterfactual": {"note": "", "rows": [FELL], "score": "logit", "n": 4, "objects": 5},
    }  # fmt: skip
    write_json(out / "report.json", report)
