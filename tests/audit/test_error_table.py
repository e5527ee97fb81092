"""What reports and the README say of the audit's errors is what the models of benchmarks/factory.py gave."""

import json
from pathlib import Path

from benchmarks.factory import KEPT
from benchmarks.factory_table import SHIPPED, cases, shipped
from xaitools.files import plain, read_json

README = Path(__file__).parents[2] / "README.md"


def test_the_rates_that_ship_are_those_of_the_kept_models():
    facts = [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]
    made = plain(shipped(facts, [case for each in facts for case in cases(each)]))
    assert made | {"date": ""} == read_json(SHIPPED) | {"date": ""}


def test_the_readme_tells_them():
    rates = read_json(SHIPPED)
    planted, honest = rates["models"]["planted"], rates["models"]["honest"]
    assert (
        f"on {rates['n']} models of {len(rates['architectures'])} architectures, with thresholds chosen on others, {planted['count']} of "
        f"{planted['n']} strong reliances were found, and a cue in {honest['count']} of {honest['n']} honest models"
    ) in " ".join(README.read_text(encoding="utf-8").split())
