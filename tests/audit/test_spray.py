"""Clusters that were planted are found, and where there is one population there is one cluster and nothing suspicious."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from xaitools.audit.decisions import PARTS, SIDE, Decided, Decisions
from xaitools.audit.spray import Criteria, affinity, clustered, features, gathered, outside_of, peak_of, spectrum, spray, stability

QUICK = Criteria(subsets=5)


def population(n: int, tagged: int, *, label: int = 0, seed: int = 0, mass: float = 0.3, confidence: float = 0.9) -> list[Decided]:
    """Decisions whose relevance is noise, half of it on the object; of the first ``tagged`` a share ``mass`` is in a corner."""
    dice = np.random.default_rng((seed, label))
    made = []
    for number in range(n):
        noise = dice.random((SIDE, SIDE)) ** 3
        place, around = 0.3 * noise / noise.sum(), dice.random((SIDE, SIDE)) ** 3
        around /= around.sum()
        if number < tagged:
            place *= 1 - mass
            place[13:15, 10:15] += mass * dice.dirichlet(np.ones(10)).reshape(2, 5)
        shares = np.zeros(len(PARTS))
        shares[[0, -1]] = 1 - place.sum(), place.sum()
        made.append(Decided(f"{label}-{number:03d}", "class:a:vs:", label, confidence, True, np.array([0.3, 0.3, 0.5, 0.5]), 3.0,
                            place, around, shares, shares))  # fmt: skip
    return made


def decisions(*some: list[Decided]) -> Decisions:
    made = tuple(each for group in some for each in group)
    return Decisions(("a", "b", "c"), "lrp", "", made, {})


def test_the_graph_is_that_of_a_plain_search_and_its_laplacian_counts_pieces():
    points = np.random.default_rng(1).random((30, 4))
    plain = np.zeros((30, 30))
    for row in range(30):
        order = sorted(range(30), key=lambda other: (((points[row] - points[other]) ** 2).sum(), other))
        for other in [each for each in order if each != row][:5]:
            plain[row, other] = plain[other, row] = 1
    assert np.array_equal(affinity(points, 5), plain)
    values, _ = spectrum(affinity(np.concatenate([points, points + 9, points - 9]), 5))
    assert (values[:3] < 1e-9).all() and values[3] > 0.01
    ring = np.roll(np.eye(12), 1, 0) + np.roll(np.eye(12), -1, 0)  # its eigenvalues are known: 1 - cos(2 pi k / 12)
    assert spectrum(ring)[0] == pytest.approx(np.sort(1 - np.cos(2 * np.pi * np.arange(12) / 12)), abs=1e-9)


@pytest.mark.parametrize("planted", [10, 30])
def test_a_planted_cluster_is_isolated_and_suspicious_and_its_place_is_named(planted):
    found = spray(decisions(population(90, planted), population(60, 0, label=1)), criteria=QUICK)
    truth = [number < planted for number in range(90)]
    facts = found["a"]
    assert facts["view"] == "place" and [each["size"] for each in facts["clusters"]] == [90 - planted, planted]
    suspects = [each for each in facts["clusters"] if each["suspicious"]]
    assert len(suspects) == 1 and not any(each["suspicious"] for each in found["b"]["clusters"])
    split = [f"0-{number:03d}" in suspects[0]["members"] for number in range(90)]
    assert adjusted_rand_score(truth, split) == 1.0
    gathers = suspects[0]["gathers"]
    assert gathers["xyxy"] == [10 / SIDE, 13 / SIDE, 15 / SIDE, 15 / SIDE] and gathers["having"] == planted
    assert gathers["mass"] == pytest.approx(0.3, abs=0.03) and gathers["ci"][0] > 0.25 and gathers["chance"] == pytest.approx(10 / SIDE**2)
    assert facts["views"]["place"]["stability"]["mean"] > 0.85 and len(facts["views"]["object"]["clusters"]) == 1


def test_one_population_is_one_cluster_and_nothing_is_suspicious():
    for seed in range(3):
        found = spray(decisions(population(80, 0, seed=seed), population(40, 0, label=1, seed=seed)), criteria=replace(QUICK, subsets=2))
        for facts in found.values():
            assert [len(view["clusters"]) for view in facts["views"].values()] == [1, 1]
            assert not facts["clusters"][0]["suspicious"] and "excess" in facts["clusters"][0]["lacks"]


def test_a_class_that_all_rests_on_a_place_is_one_suspicious_cluster_beside_the_other_classes():
    found = spray(decisions(population(40, 40), population(40, 0, label=1)), criteria=QUICK)
    assert [(each["size"], each["suspicious"]) for each in found["a"]["clusters"]] == [(40, True)]
    alone = spray(decisions(population(40, 40)), criteria=QUICK)["a"]["clusters"][0]  # nothing to compare with
    assert not alone["suspicious"] and alone["gathers"]["ci"] is None


def test_what_surrounds_an_object_on_all_sides_is_no_place():
    halo = np.zeros((SIDE, SIDE))
    halo[2:14, 2:14], halo[4:12, 4:12] = 1, 0
    faint = [replace(each, object_view=0.2 * each.object_view) for group in (0, 1) for each in population(40, 0, label=group)]
    around = [replace(each, object_view=each.object_view + 0.8 * halo / halo.sum()) if each.label == 0 else each for each in faint]
    (cluster,) = spray(decisions(around), criteria=QUICK)["a"]["views"]["object"]["clusters"]
    assert cluster["lacks"] == ["widest"] and cluster["gathers"]["xyxy"] == [2 / SIDE, 2 / SIDE, 14 / SIDE, 14 / SIDE]


def test_what_the_model_is_not_sure_of_is_not_suspicious():
    unsure = [replace(each, confidence=0.6) if number < 20 else each for number, each in enumerate(population(80, 20))]
    clusters = spray(decisions(unsure, population(40, 0, label=1)), criteria=QUICK)["a"]["clusters"]
    assert [each["lacks"] for each in clusters if each["size"] == 20] == [["confidence"]]


def test_the_place_is_not_measured_where_it_was_chosen():
    """Two groups of one population: chosen and measured on the same images the first would always seem to have more."""
    found = [gathered("place", made[:20], made[20:], 0)["difference"] for seed in range(24) if (made := population(40, 0, seed=seed))]
    assert abs(np.mean(found)) < 2.5 * np.std(found) / len(found) ** 0.5


def test_the_order_of_the_decisions_changes_nothing():
    made = [*population(50, 15), *population(30, 0, label=1)]
    some = decisions(made)
    shuffled = decisions([made[place] for place in np.random.default_rng(5).permutation(len(made))])
    one, other = (json.dumps(spray(each, criteria=replace(QUICK, subsets=2))) for each in (some, shuffled))
    assert bool(one == other)  # as text, and not told apart by pytest, which would take minutes


def test_few_decisions_are_not_clustered_and_many_are_drawn_from():
    few = spray(decisions(population(14, 5), population(25, 5, label=1)), criteria=replace(QUICK, most=24))
    assert few["a"]["clusters"] == [] and "too few" in few["a"]["note"]
    assert few["b"]["note"].startswith("24 of 25") and sum(each["size"] for each in few["b"]["clusters"]) == 24


def test_the_stability_of_clusters_that_are_none_is_low():
    points = features(np.stack([each.place for each in population(60, 0)]))
    thirds = np.arange(60) % 3
    assert max(stability(points, thirds, 0, QUICK)[1]) < 0.5 and max(map(abs, stability(points, thirds, 0, QUICK)[0])) < 0.2
    planted = features(np.stack([each.place for each in population(60, 20)]))
    labels, _ = clustered(planted, 0, 8)
    assert min(stability(planted, labels, 0, QUICK)[1]) > 0.95


def test_the_place_is_the_box_of_what_hangs_together_with_the_strongest_cell():
    contrast = np.zeros((6, 6))
    contrast[1, 1], contrast[2, 2], contrast[2, 3], contrast[5, 5] = 1.0, 0.5, 0.3, 0.9
    assert peak_of(contrast) == (1, 1, 4, 3) and peak_of(np.zeros((6, 6))) == (0, 0, 1, 1)
    middle = outside_of(np.ones((SIDE, SIDE)), "object")
    assert middle.sum() == SIDE**2 - 64 and not middle[4:12, 4:12].any()
