from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xaitools.metrics import Table, drop_between, image_statistics, image_weights, interval, needed, paired_drop

IDS = [f"image-{index}" for index in range(12)]


def guesses(right):
    return Table("classification", ("cat", "dog"), [{"label": np.array([0]), "guess": np.array([int(not each)])} for each in right])


# ---- draws -----------------------------------------------------------------------------------------------------


def test_draws_are_a_bootstrap_of_the_images():
    weights = image_weights(IDS, seed=0, replicates=4000)
    assert weights.shape == (4000, 12) and weights.min() == 0
    assert (weights.sum(1) == 12).all()
    assert weights.mean(0) == pytest.approx(np.ones(12), abs=0.07)
    assert weights.var(0) == pytest.approx(np.full(12, 11 / 12), abs=0.12)  # binomial(12, 1/12)


def test_draws_belong_to_seed_and_items():
    weights = image_weights(IDS, seed=0, replicates=50)
    assert (weights == image_weights(IDS, seed=0, replicates=50)).all()
    assert (weights != image_weights(IDS, seed=1, replicates=50)).any()
    assert (weights != image_weights([*IDS[:-1], "other"], seed=0, replicates=50)).any()


@given(st.permutations(range(12)))
@settings(max_examples=20, deadline=None)
def test_another_order_gives_each_image_its_own_column(order):
    weights = image_weights(IDS, seed=3, replicates=7)
    assert (image_weights([IDS[index] for index in order], seed=3, replicates=7) == weights[:, order]).all()


def test_draws_do_not_change():
    # other processes, machines and versions must draw the same, or a resumed run would mix two bootstraps
    assert image_weights(["a", "b", "c", "d"], seed=5, replicates=3).tolist() == [[2, 2, 0, 0], [0, 2, 1, 1], [1, 1, 1, 1]]


def test_clusters_are_drawn_whole():
    clusters = ["east"] * 5 + ["west"] * 3 + ["north"] * 4
    weights = image_weights(IDS, seed=0, replicates=500, clusters=clusters)
    assert (weights[:, :5] == weights[:, :1]).all() and (weights[:, 5:8] == weights[:, 5:6]).all()
    assert (weights[:, [0, 5, 8]].sum(1) == 3).all()
    with pytest.raises(ValueError, match="one name an image"):
        image_weights(IDS, seed=0, replicates=5, clusters=clusters[:-1])


def test_no_images_no_draws():
    assert image_weights([], seed=0, replicates=4).shape == (4, 0)


# ---- intervals -------------------------------------------------------------------------------------------------


def test_interval_holds_the_share_it_says():
    samples = np.arange(1001) / 1000
    assert interval(samples) == pytest.approx([0.025, 0.975])
    assert interval(samples, level=0.5) == pytest.approx([0.25, 0.75])


def test_interval_leaves_out_what_is_undefined():
    assert interval(np.array([0.5, 0.5, np.nan, np.nan])) == [0.5, 0.5]
    assert interval(np.array([0.5, np.nan, np.nan])) is None
    assert interval(np.array([])) is None


# ---- drops -----------------------------------------------------------------------------------------------------


def test_drop_equals_the_loop_over_replicates():
    generator = np.random.default_rng(0)
    clean, other = generator.random((2, 12)) < [[0.9], [0.4]]
    weights = image_weights(IDS, seed=0, replicates=400)
    samples = []
    for line in weights:
        drawn = [index for index, count in enumerate(line) for _ in range(count)]
        samples.append(sum(clean[i] for i in drawn) / 12 - sum(other[i] for i in drawn) / 12)
    result = paired_drop(guesses(clean), guesses(other), weights)
    assert result["value"] == pytest.approx(other.mean())
    assert result["drop"] == pytest.approx(clean.mean() - other.mean())
    assert result["ci"] == pytest.approx(np.percentile(samples, [2.5, 97.5]).tolist())
    beyond = min(sum(sample <= 1e-9 for sample in samples), sum(sample >= -1e-9 for sample in samples))
    assert result["p"] == pytest.approx(2 * (beyond + 1) / 401)
    assert 0 < result["ci"][0] < result["drop"] < result["ci"][1] < 1


def test_identical_tables_drop_nothing_at_all(make_random_boxes):
    generator = np.random.default_rng(1)
    rows = [image_statistics(*make_random_boxes(generator, id)) for id in IDS]
    tables = [Table("detection", ("cat", "dog", "eel"), rows) for _ in range(2)]
    result = paired_drop(*tables, image_weights(IDS, seed=0, replicates=300))
    assert (result["drop"], result["ci"], result["p"]) == (0.0, [0.0, 0.0], 1.0)


def test_a_gain_is_a_negative_drop():
    weights = image_weights(IDS, seed=0, replicates=300)
    worse, better = guesses([False] * 10 + [True] * 2), guesses([True] * 12)
    down, up = paired_drop(better, worse, weights), drop_between(worse, better, weights)
    assert up["drop"] == -down["drop"] < 0 and up["value"] == 1
    assert up["ci"] == pytest.approx([-down["ci"][1], -down["ci"][0]])
    assert up["p"] == down["p"] == pytest.approx(2 / 301)


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(0)
    ids = [str(index) for index in range(200)]
    clean = generator.random(200) < 0.7
    other = clean & (generator.random(200) < 0.8)
    weights, unpaired = (image_weights(ids, seed=seed, replicates=500) for seed in (0, 1))
    low, high = paired_drop(guesses(clean), guesses(other), weights)["ci"]
    apart = interval(guesses(clean).metric(weights) - guesses(other).metric(unpaired))
    assert high - low < 0.8 * (apart[1] - apart[0])


def test_undefined_drops_are_none():
    unknown = Table("classification", ("cat", "dog"), [{"label": np.array([-1]), "guess": np.array([0])}] * 12)
    result = paired_drop(guesses([True] * 12), unknown, image_weights(IDS, seed=0, replicates=20))
    assert result == {"value": None, "drop": None, "ci": None, "p": None}


def test_tables_of_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        paired_drop(guesses([True] * 12), guesses([True] * 11), image_weights(IDS, seed=0, replicates=20))


def test_needed_images():
    # 80 % power for a drop of 0.05 where it varies by 0.2 from image to image: 126
    half = 1.959964 * 0.2 / np.sqrt(50)
    assert needed(50, [0.1 - half, 0.1 + half]) == 126
    assert needed(50, [0.1 - half, 0.1 + half], drop=0.025) == 503
    assert needed(50, [0.0, 0.0]) == 1
