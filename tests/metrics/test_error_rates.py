import numpy as np
import pytest
from scipy.stats import beta

from xaitools.metrics.error_rates import LEAST, NONE, RELIES, UNDECIDED, Case, Rule, auroc, clopper_pearson, leave_out, power, rates, share

RULE = Rule("low", "high")


def case(model, family="tag", truth=True, strength=0.5, plant="tag", architecture="unet", **features):
    return Case(model, architecture, plant, family, truth, strength, features)


def drawn(seed, n=60, models=20):
    """Cases whose features tell a little; ties are frequent."""
    dice = np.random.default_rng(seed)
    found = []
    for index in range(n):
        truth = [True, False, None][int(dice.choice(3, p=[0.35, 0.55, 0.1]))]
        low = int(dice.integers(0, 12)) + 3 * bool(truth)
        family, architecture = "abc"[index % 3], "xy"[index // 3 % 2]
        found.append(case(f"{architecture}{index % models}", family, truth, architecture=architecture, low=low, high=low + 2))
    return found


@pytest.mark.parametrize(("count", "n"), [*((k, n) for n in (1, 2, 7, 12) for k in range(n + 1)), (3, 60), (118, 120), (0, 900)])
def test_the_interval_of_a_share_is_that_of_the_beta_distribution(count, n):
    low = beta.ppf(0.025, count, n - count + 1) if count else 0
    high = beta.ppf(0.975, count + 1, n - count) if count < n else 1
    assert clopper_pearson(count, n) == pytest.approx([low, high], abs=1e-9)


def test_auroc_counts_pairs():
    rows = [case("m", truth=truth, low=low) for truth, low in [(True, 3), (True, 1), (False, 1), (False, 0), (False, None), (None, 9)]]
    pairs = [(1 if yes > no else 0.5 if yes == no else 0) for yes in (3, 1) for no in (1, 0)]
    assert auroc(rows, "low") == {"value": sum(pairs) / 4, "positives": 2, "negatives": 2, "undefined": 1}
    assert auroc(rows[:2], "low")["value"] is None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [0.0, 0.05, 0.2])
def test_a_threshold_finds_as_much_as_any_that_raises_no_more_alarms(seed, most):
    rows = drawn(seed)

    def outcome(threshold):
        said = [each for each in rows if RULE.judge(each.features, threshold) == RELIES]
        return sum(each.truth is True for each in said), len({each.model for each in said if each.truth is False})

    allowed = int(most * len({each.model for each in rows if each.truth is False}))
    found, alarms = outcome(RULE.fit(rows, most))
    assert alarms <= allowed
    assert found == max(hits for hits, wrong in map(outcome, np.arange(LEAST, 16, 0.5)) if wrong <= allowed)


def test_a_threshold_lies_midway_to_the_next_value_above():
    rows = [case("a", truth=False, low=0.1, high=1), case("b", low=0.5, high=1), case("c", low=0.9, high=1)]
    assert RULE.fit(rows) == pytest.approx(0.3)
    assert RULE.fit([case("d", truth=False, low=0.07, high=0.09), *rows[1:]]) == LEAST  # no alarm, since there is no evidence
    assert RULE.fit(rows[:1]) is None
    assert RULE.fit(rows[1:]) is None


def test_where_nothing_could_be_a_false_alarm_what_is_no_reliance_stays_none():
    assert RULE.fit([case("a", truth=False, low=-np.inf), case("b", low=0.5)]) == LEAST
    assert RULE.fit([case(str(n), truth=False, low=0.4) for n in range(3)] + [case("b", low=0.5)], most=1.0) == LEAST


def test_a_verdict_needs_the_whole_interval_on_one_side():
    def judged(low, high, threshold=0.1):
        return RULE.judge({"low": low, "high": high}, threshold)

    assert judged(0.2, 0.4) == RELIES
    assert judged(0.05, 0.4) == UNDECIDED
    assert judged(-0.1, 0.09) == NONE
    assert judged(0.06, 0.09, 0.05) == NONE and judged(0.06, 0.11, 0.05) == RELIES  # what is worth a finding is not excluded
    assert judged(0.01, 0.12, 0.15) == NONE and judged(0.01, 0.12, 0.05) == UNDECIDED
    assert judged(0.2, None) == judged(None, 0.05) == judged(0.2, 0.4, None) == UNDECIDED


def test_a_model_that_is_not_assessed_is_neither_right_nor_wrong():
    seen = [case(str(n), truth=False, strength=0.0, plant="", low=0.0, high=0.05) for n in range(3)]
    blind = [Case(str(n), "unet", "", "tag", False, 0.0, {"low": -np.inf, "high": np.inf}, refused=True) for n in range(3, 30)]
    found = rates([*seen, *blind], [NONE, RELIES, UNDECIDED] + [UNDECIDED] * len(blind))
    assert [(found["pooled"][key]["count"], found["pooled"][key]["n"]) for key in ("negatives", "undecided")] == [(1, 3), (1, 3)]
    assert (found["models"]["honest"]["n"], found["models"]["refused"]["count"], found["models"]["refused"]["n"]) == (3, 27, 30)
    loud = case("a", truth=False, low=0.3, high=1)
    strong = case("b", low=0.9, high=1)
    assert RULE.fit([loud, strong, *blind]) == RULE.fit([loud, strong])  # they allow no false alarm either


def test_no_case_has_a_part_in_its_own_thresholds_nor_has_its_family_or_architecture():
    rows = drawn(7)
    judged = leave_out(rows, RULE, most=0.2)
    for place, row in enumerate(rows):
        others = [each for each in rows if each.family != row.family and each.architecture != row.architecture]
        mine = RULE.fit(others, most=0.2)
        assert judged[place] == (RULE.judge(row.features, mine), mine)
    assert len({threshold for _, threshold in judged}) > 1


def test_rates_count_by_case_and_by_model():
    rows = [
        case("a"), case("a", "light", truth=False),
        case("b", strength=0.15), case("b", "light", truth=False),
        case("c", truth=False, plant=""), case("c", "light", truth=False, plant=""),
        case("d", truth=None, strength=0.07), case("d", "light", truth=False),
        case("e"), case("e", "light", truth=False),
        case("f", truth=False, plant=""), case("f", "light", truth=False, plant=""),
        case("g", truth=None, plant="", strength=0.07), case("g", "light", truth=False, plant=""),
        case("h", truth=None, plant="", strength=0.07), case("h", "light", truth=False, plant=""),
    ]  # fmt: skip
    verdicts = [RELIES, NONE, UNDECIDED, RELIES, NONE, RELIES, RELIES, RELIES, UNDECIDED, UNDECIDED, NONE, NONE]
    verdicts += [NONE, RELIES, RELIES, NONE]  # what lies between is no false alarm, but the model is counted
    found = rates(rows, verdicts)
    assert found["families"]["tag"] == {
        "strong": share(1, 2), "positives": share(1, 3), "negatives": share(0, 2), "undecided": share(0, 2), "middle": 3,
    }  # fmt: skip
    assert found["families"]["light"]["negatives"] == share(4, 8)
    assert found["pooled"]["undecided"] == share(1, 10)
    assert found["models"] == {"honest": share(2, 4), "planted": share(1, 2), "refused": share(0, 4)}


def test_power_covers_every_strength_once():
    rows = [case("m", strength=strength) for strength in (-0.3, 0.0, 0.05, 0.15, 0.2, 0.99, 1.0)]
    found = power(rows, [RELIES] * 6 + [NONE])
    assert [row["n"] for row in found] == [2, 1, 1, 1, 0, 2]
    assert [row["count"] for row in found] == [2, 1, 1, 1, 0, 1]
