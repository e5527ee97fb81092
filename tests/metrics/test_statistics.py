from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm

from xaitools.errors import XaiError
from xaitools.metrics import METHODS, Drawn, Table, bands, draw, equivalence, holm, image_statistics, image_weights, interval, needed
from xaitools.metrics.coverage import MEASURED, coverage
from xaitools.metrics.statistics import pooled_mean

IDS = [f"image-{index}" for index in range(12)]


def guesses(right):
    return Table("classification", ("cat", "dog"), [{"label": np.array([0]), "guess": np.array([int(not each)])} for each in right])


def drop(clean, other, weights, clusters=None):
    return draw({"clean": clean, "other": other}, lambda each: {"drop": each["clean"] - each["other"]}, weights, clusters)["drop"]


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


def test_a_drop_and_its_error_equal_the_loop_over_draws():
    generator = np.random.default_rng(0)
    clean, other = generator.random((2, 12)) < [[0.9], [0.4]]
    weights = image_weights(IDS, seed=0, replicates=400)
    lost = clean.astype(float) - other
    drawn = np.array([np.repeat(lost, line) for line in weights])
    found = drop(guesses(clean), guesses(other), weights)
    assert (found.value, found.error) == pytest.approx((lost.mean(), lost.std() / np.sqrt(12)))
    assert found.samples == pytest.approx(drawn.mean(1)) and found.errors == pytest.approx(drawn.std(1) / np.sqrt(12))
    assert found.interval(method="percentile") == pytest.approx(np.percentile(drawn.mean(1), [2.5, 97.5]).tolist())
    t = (drawn.mean(1) - lost.mean()) / (drawn.std(1) / np.sqrt(12))
    low, high = np.percentile(t, [2.5, 97.5])
    assert found.interval() == pytest.approx([found.value - high * found.error, found.value - low * found.error])
    beyond = min((t >= found.value / found.error).sum(), (t <= found.value / found.error).sum())
    assert found.p == pytest.approx(2 * (beyond + 1) / 401)


def test_the_influence_of_an_image_is_the_derivative_by_its_weight(make_random_boxes):
    generator = np.random.default_rng(0)
    names = ("cat", "dog", "eel")
    boxes = [image_statistics(*make_random_boxes(generator, id)) for id in IDS]
    pixels = [{"confusion": generator.integers(0, 9, 9) * (generator.random(9) < 0.5)} for _ in IDS]
    labels = [{"label": generator.integers(-1, 3, 1), "guess": generator.integers(0, 3, 1)} for _ in IDS]
    for task, rows in (("detection", boxes), ("segmentation", pixels), ("classification", labels)):
        table = Table(task, names, rows)
        weights = generator.random((15, 12)) + (generator.random((15, 12)) < 0.5)  # no two places of equal precision
        values, moves = table.influence(weights)
        assert values == pytest.approx(table.metric(weights)) and (weights * moves).sum(1) == pytest.approx(np.zeros(15), abs=1e-9)
        for image, step in enumerate(1e-6 * np.eye(12)):
            slope = (table.metric(weights + step) - table.metric(weights - step)) / 2e-6
            assert moves[:, image] == pytest.approx(slope, abs=1e-6), task
        for name in names:  # of one class: by the table that holds no other
            alone = table.of_class(name)
            found, moved = alone.influence(weights)
            assert found[0] == pytest.approx(alone.influence(7 * weights)[0][0], nan_ok=True)
            assert alone.influence(np.ones((1, 12)))[0][0] == pytest.approx(table.per_class()[name])
            for image, step in enumerate(1e-6 * np.eye(12)):
                slope = (alone.influence(weights + step)[0] - alone.influence(weights - step)[0]) / 2e-6
                assert moved[:, image] == pytest.approx(slope, abs=1e-6, nan_ok=True), (task, name)


def test_a_drop_of_many_images_has_the_normal_interval():
    generator = np.random.default_rng(3)
    clean, other = generator.random((2, 400)) < [[0.9], [0.7]]
    lost = clean.astype(float) - other
    ends = lost.mean() + norm.ppf([0.025, 0.975]) * lost.std() / 20
    weights = image_weights([str(index) for index in range(400)], seed=0, replicates=2000)
    for method in METHODS:
        assert drop(guesses(clean), guesses(other), weights).interval(method=method) == pytest.approx(ends.tolist(), abs=0.006), method


def test_bca_is_that_of_scipy():
    skewed = np.random.default_rng(1).lognormal(size=25)
    theirs = bootstrap((skewed,), np.mean, n_resamples=1500, method="BCa", random_state=0)
    moves = (skewed - skewed.mean()) / 25
    ours = Drawn(skewed.mean(), 1.0, theirs.bootstrap_distribution, np.ones(1500), moves)
    ends = theirs.confidence_interval
    assert ours.interval(method="bca") == pytest.approx([ends.low, ends.high], rel=1e-6)
    assert ours.interval(method="bca")[1] > 1.02 * ours.interval(method="percentile")[1]


def test_identical_tables_drop_nothing_at_all(make_random_boxes):
    generator = np.random.default_rng(1)
    rows = [image_statistics(*make_random_boxes(generator, id)) for id in IDS]
    tables = [Table("detection", ("cat", "dog", "eel"), rows) for _ in range(2)]
    found = drop(*tables, image_weights(IDS, seed=0, replicates=300))
    assert (found.value, found.p) == (0.0, 1.0)
    assert all(found.interval(method=method) == [0.0, 0.0] for method in METHODS)


def test_a_gain_is_a_negative_drop():
    weights = image_weights(IDS, seed=0, replicates=300)
    worse, better = guesses([False] * 8 + [True] * 4), guesses([True] * 12)
    down, up = drop(better, worse, weights), drop(worse, better, weights)
    assert up.value == -down.value < 0
    for method in METHODS:
        low, high = down.interval(method=method)
        assert up.interval(method=method) == pytest.approx([-high, -low])
    assert up.p == down.p < 0.05


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(0)
    ids = [str(index) for index in range(200)]
    clean = generator.random(200) < 0.7
    other = clean & (generator.random(200) < 0.8)
    weights, unpaired = (image_weights(ids, seed=seed, replicates=500) for seed in (0, 1))
    low, high = drop(guesses(clean), guesses(other), weights).interval()
    apart = interval(guesses(clean).metric(weights) - guesses(other).metric(unpaired))
    assert high - low < 0.8 * (apart[1] - apart[0])


def test_undefined_drops_are_none():
    unknown = Table("classification", ("cat", "dog"), [{"label": np.array([-1]), "guess": np.array([0])}] * 12)
    found = drop(guesses([True] * 12), unknown, image_weights(IDS, seed=0, replicates=20))
    assert np.isnan(found.value) and found.p is None and all(found.interval(method=method) is None for method in METHODS)
    assert found.facts() == {"value": None, "ci": None} and bands([found]) == [None]
    assert equivalence(found, 0.03)["no_drop"] is None


def test_a_draw_without_the_one_image_that_differs_takes_the_error_of_the_value():
    found = drop(guesses([True] * 12), guesses([False] + [True] * 11), image_weights(IDS, seed=0, replicates=300))
    assert (found.errors == 0).any() and np.isfinite(found.t).all()
    assert found.interval()[1] >= 2 * found.value


def test_tables_of_other_images_are_refused():
    with pytest.raises(ValueError, match="same images"):
        drop(guesses([True] * 12), guesses([True] * 11), image_weights(IDS, seed=0, replicates=20))
    with pytest.raises(XaiError, match="did you mean bca"):
        drop(guesses([True] * 12), guesses([True] * 12), image_weights(IDS, seed=0, replicates=20)).interval(method="bcaa")


def test_clusters_of_one_image_are_images():
    generator = np.random.default_rng(2)
    clean, other = generator.random((2, 12)) < [[0.9], [0.4]]
    weights = image_weights(IDS, seed=0, replicates=200)
    one, same = (drop(guesses(clean), guesses(other), weights, clusters) for clusters in (None, IDS))
    assert same.interval() == pytest.approx(one.interval()) and sorted(same.moves) == pytest.approx(sorted(one.moves))


def test_the_error_of_clusters_is_that_of_their_means():
    lost = np.array([1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1]) == 1  # four clusters of three
    clusters = [f"{place // 3}" for place in range(12)]
    found = drop(guesses([True] * 12), guesses(~lost), image_weights(IDS, seed=0, replicates=50, clusters=clusters), clusters)
    means = lost.reshape(4, 3).mean(1)
    assert found.error == pytest.approx(means.std() / np.sqrt(4)) and len(found.moves) == 4


@given(st.permutations(range(12)))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_images_changes_nothing(order):
    generator = np.random.default_rng(5)
    clean, other = generator.random((2, 12)) < [[0.9], [0.4]]
    ends = []
    for places in (list(range(12)), order):
        ids = [IDS[place] for place in places]
        weights = image_weights(ids, seed=0, replicates=100)
        number = drop(guesses(clean[places]), guesses(other[places]), weights)
        ends.append([*number.interval(), *number.interval(method="bca"), number.p])
    assert ends[0] == pytest.approx(ends[1])


def test_ratios_move_with_both_parts():
    generator = np.random.default_rng(6)
    clean, other = (guesses(generator.random(12) < share) for share in (0.9, 0.5))
    weights = 1 + generator.random((1, 12))
    found = draw({"a": clean, "b": other}, lambda each: {"share": each["b"] / each["a"]}, weights)["share"]
    assert found.samples == pytest.approx(other.metric(weights) / clean.metric(weights))
    slopes = []
    for step in 1e-6 * np.eye(12)[:, None]:
        up, down = (other.metric(1 + each) / clean.metric(1 + each) for each in (step, -step))
        slopes.append(float((up - down)[0] / 2e-6))
    assert found.moves == pytest.approx(slopes, abs=1e-6)


# ---- several numbers -------------------------------------------------------------------------------------------


def cells(count, n=30):
    generator = np.random.default_rng(7)
    hard = generator.random(n)
    weights = image_weights([str(place) for place in range(n)], seed=0, replicates=400)
    clean = guesses(hard < 0.9)
    return [drop(clean, guesses(hard + 0.2 * generator.random(n) < 0.9 - 0.05 * cell), weights) for cell in range(count)]


def test_a_band_holds_the_interval_of_each_of_its_cells():
    numbers = cells(5)
    for number, band in zip(numbers, bands(numbers), strict=True):
        low, high = number.interval()
        assert band[0] <= low < high <= band[1]
    assert bands(numbers[:1])[0] == pytest.approx(numbers[0].interval())
    assert bands([numbers[0]] * 3)[2] == pytest.approx(numbers[0].interval())  # one number thrice is one number


def test_bands_of_independent_numbers_are_those_of_sidak():
    t = np.random.default_rng(0).normal(size=(4, 20_000))
    numbers = [Drawn(0.0, 1.0, each, np.ones(20_000), np.ones(1)) for each in t]
    end = norm.ppf(0.975 ** (1 / 4))
    for band in bands(numbers):
        assert band == pytest.approx([-end, end], abs=0.06)


def test_holm_by_hand():
    # 0.01 * 4, 0.013 * 3 below it, 0.03 * 2, 0.9
    assert holm([0.03, 0.01, 0.9, 0.013]) == pytest.approx([0.06, 0.04, 0.9, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([None]) == [None]


@pytest.mark.parametrize(
    ("value", "no_drop", "says"),
    [(0.0, True, "no drop beyond 3 points"), (0.0135, True, "no drop beyond 3 points"), (0.018, None, "undecided"),
     (0.021, False, "a drop"),
     (-0.0135, True, "no drop beyond 3 points"), (-0.1, None, "a gain")],
)  # fmt: skip
def test_equivalence_by_hand(value, no_drop, says):
    z = norm.ppf((np.arange(4000) + 0.5) / 4000)  # error 0.01: 90 % is 0.01645 on either side, 95 % 0.0196
    found = equivalence(Drawn(value, 0.01, value + 0.01 * z, np.full(4000, 0.01), np.ones(1)), 0.03)
    assert (found["no_drop"], found["says"]) == (no_drop, says)
    assert found["ci90"] == pytest.approx([value - 0.01645, value + 0.01645], abs=1e-4)


def test_coverage_is_read_between_measured_sizes():
    for table in MEASURED.values():
        assert set(table) <= {10, 40, 50, 100, 200, 500}
    first, second = (MEASURED["segmentation"][size] for size in (50, 200))
    assert coverage("segmentation", 50) == pytest.approx(first) and coverage("segmentation", 5) == pytest.approx(first)
    share = (1 / np.sqrt(50) - 1 / np.sqrt(100)) / (1 / np.sqrt(50) - 1 / np.sqrt(200))
    assert coverage("segmentation", 100) == pytest.approx([(1 - share) * a + share * b for a, b in zip(first, second, strict=True)])
    assert coverage("instances", 200) == coverage("detection", 200)


def test_needed_images():
    # 80 % power for a drop of 0.05 where it varies by 0.2 from image to image: 126
    half = 1.959964 * 0.2 / np.sqrt(50)
    assert needed(50, [0.1 - half, 0.1 + half]) == 126
    assert needed(50, [0.1 - half, 0.1 + half], drop=0.025) == 503
    assert needed(50, [0.0, 0.0]) == 1


@pytest.mark.parametrize("units", [None, [f"c{index % 12}" for index in range(30)]])
def test_a_pooled_mean_and_its_interval_equal_the_loop_over_draws(units):
    dice = np.random.default_rng(3)
    groups = [dice.exponential(size=dice.integers(0, 4)).tolist() for _ in range(30)]
    weights = image_weights([str(index) for index in range(30)], seed=0, replicates=400, clusters=units)
    owner = units or list(range(30))

    def one(times):
        drawn = {owner[index]: (int(times[index]), []) for index in range(30)}
        for index, cases in enumerate(groups):
            drawn[owner[index]][1].extend(cases)
        cases = [value for count, held in drawn.values() for value in held * count]
        value = sum(cases) / len(cases)
        error = sum(count * sum(each - value for each in held) ** 2 for count, held in drawn.values()) ** 0.5 / len(cases)
        return value, error

    value, error = one(np.ones(30, int))
    t = [(mean - value) / (spread if spread > 0.3 * error else error) for mean, spread in map(one, weights)]
    low, high = np.quantile(t, [0.025, 0.975])
    found = pooled_mean(groups, weights, units)
    assert found["value"] == pytest.approx(value) and found["ci"] == pytest.approx([value - high * error, value - low * error])
    assert pooled_mean([[0.7]] * 30, weights, units)["ci"] == pytest.approx([0.7, 0.7])
    assert pooled_mean([[]] * 30, weights, units) == {"value": None, "ci": None}
    assert pooled_mean(groups, weights[:3], ["a", "b", "c"] * 10)["ci"] is None


def test_where_one_case_differs_the_interval_is_about_as_wide_as_that_case_allows():
    cases = [[0.1], *([1e-5 * index] for index in range(17))]
    low, high = pooled_mean(cases, image_weights([str(index) for index in range(18)], seed=0, replicates=2000))["ci"]
    assert -0.02 < low < 0 and 0.0057 < high < 0.03


def test_the_interval_of_a_mean_of_few_skewed_cases_holds_it_more_often_than_the_middle_of_the_draws():
    dice, held = np.random.default_rng(1), np.zeros(2)
    for repetition in range(400):
        cases = dice.exponential(size=15)
        weights = image_weights([f"{repetition}-{index}" for index in range(15)], seed=0, replicates=300)
        for place, ci in enumerate((pooled_mean(cases[:, None].tolist(), weights)["ci"], interval(weights @ cases / 15))):
            held[place] += ci[0] <= 1 <= ci[1]
    assert held[0] / 400 >= 0.92 and held[1] / 400 <= 0.91
