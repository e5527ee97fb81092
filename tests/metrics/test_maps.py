"""Measures of maps against closed forms: maps that are right by construction, wrong, reversed, and flat."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from xaitools.metrics import maps


def square(side=8):
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[1:4, 2:6] = True
    return inside


def test_a_map_of_the_object_is_perfect_and_its_opposite_is_not():
    inside = square()
    right, wrong = inside.float(), (~inside).float()
    assert maps.pointing(right, inside) == 1 and maps.pointing(wrong, inside) == 0
    assert maps.mass_gain(right, inside) == pytest.approx(1) and maps.rank_gain(right, inside) == pytest.approx(1)
    area = float(inside.double().mean())
    assert maps.mass_gain(wrong, inside) == pytest.approx(-area / (1 - area)) == maps.rank_gain(wrong, inside)
    assert maps.mass_gain(torch.ones(8, 8), inside) == pytest.approx(0, abs=1e-7), "equal relevance everywhere is chance"


def test_negative_relevance_is_no_mass_of_the_object():
    inside = square()
    values = torch.where(inside, -5.0, 0.0)
    values[7, 7] = 1
    assert maps.pointing(values, inside) == 0 and maps.mass_gain(values, inside) < 0


def test_what_a_map_cannot_have_is_none():
    flat, inside = torch.zeros(8, 8), square()
    assert maps.pointing(flat, inside) is maps.mass_gain(flat, inside) is maps.rank_gain(flat, inside) is None
    assert maps.change(flat, torch.rand(8, 8)) is None and maps.flipping(None, torch.rand(3, 8, 8), flat, torch.zeros(3, 8, 8)) is None
    assert maps.mass_gain(torch.rand(8, 8), torch.ones(8, 8, dtype=torch.bool)) is None, "an object that fills the image"
    assert maps.rank_gain(torch.rand(8, 8), torch.zeros(8, 8, dtype=torch.bool)) is None


def test_random_maps_are_at_chance():
    inside, generator = square(32), torch.Generator().manual_seed(0)
    gains = [(maps.mass_gain(each, inside), maps.rank_gain(each, inside)) for each in torch.randn(400, 32, 32, generator=generator)]
    assert torch.tensor(gains).mean(0).abs().max() < 0.01


def test_flipping_a_linear_model_follows_the_sorted_weights():
    """A score that is a weighted sum: deletion by its own weights leaves what the rest adds up to."""
    weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    image, fill = torch.ones(3, 6, 6, dtype=torch.float64), torch.zeros(3, 6, 6, dtype=torch.float64)

    def scores(images):
        return (images[:, 0] * weights).sum((1, 2))

    left = weights.flatten().sort(descending=True).values
    expected = torch.stack([left[count:].sum() for count in range(0, 37, 6)])
    assert torch.allclose(maps.flipping(scores, image, weights, fill, steps=6), expected)
    gained = torch.stack([left[:count].sum() for count in range(0, 37, 6)])
    assert torch.allclose(maps.flipping(scores, image, weights, fill, steps=6, insert=True), gained)
    others = [maps.area_under(maps.flipping(scores, image, torch.randn(6, 6), fill, steps=36)) for _ in range(20)]
    assert maps.area_under(maps.flipping(scores, image, weights, fill, steps=36)) < min(others), "no other order takes it down faster"


def test_area_under_a_straight_line_is_its_middle():
    assert maps.area_under(torch.linspace(1, 0, 11)) == pytest.approx(0.5)


@given(st.lists(st.integers(-3, 3), min_size=9, max_size=9), st.lists(st.integers(-3, 3), min_size=9, max_size=9))
def test_change_is_one_minus_spearman(one, other):
    a, b = (torch.tensor(each, dtype=torch.float64).view(3, 3) for each in (one, other))
    found = maps.change(a, b)
    if len(set(one)) < 2 or len(set(other)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(1 - spearmanr(one, other).statistic, abs=1e-9)


def test_edges_of_a_flat_image_and_of_a_step():
    image = torch.zeros(3, 6, 8)
    assert not maps.edge_map(image).any()
    image[:, :, 4:] = 1
    edges = maps.edge_map(image)
    assert (edges[:, 3:5] == 4).all() and not edges[:, :3].any() and not edges[:, 5:].any()


@pytest.mark.parametrize("share", [0, 1 / 6, 0.5, 1])
def test_the_strongest_pixels_are_those_that_flipping_takes(share):
    values = torch.randn(6, 6, generator=torch.Generator().manual_seed(2))
    taken = maps.flipping(lambda images: images[:, 0], torch.ones(3, 6, 6), values, torch.zeros(3, 6, 6), steps=6)[round(6 * share)]
    assert torch.equal(maps.strongest(values, share), taken == 0) and int(maps.strongest(values, share).sum()) == 36 * share


def test_a_blurred_point_is_a_gaussian_window_of_an_eighth_of_each_side():
    image = torch.zeros(3, 64, 80)
    image[:, 32, 40] = 1
    down, across = (torch.exp(-(torch.arange(-half, half + 1) ** 2) / 2 / ((2 * half + 1) / 4) ** 2) for half in (4, 5))
    window = down[:, None] * across / down.sum() / across.sum()
    found = maps.blurred(image)
    assert torch.allclose(found[0, 28:37, 35:46], window, atol=1e-6) and float(found[0].sum()) == pytest.approx(1, abs=1e-5)
