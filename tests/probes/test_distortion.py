"""The corruptions of ImageNet-C against their constants, closed forms and slow plain versions."""

from __future__ import annotations

import colorsys
import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

from tests.probes.toys import Shapes
from xaitools.errors import XaiError
from xaitools.probes import PROBES, Context, change, select
from xaitools.probes.base import draws
from xaitools.probes.distortion import TEST, blur, digital, elastic, frost, noise, weather
from xaitools.types import Sample

CORRUPTIONS = sorted(name for name, each in PROBES.items() if each.family == "distortion" and not each.members)
SCALED = [name for name in CORRUPTIONS if "mode" in PROBES[name].defaults]
SEVERITIES = range(1, 6)


def changed(name: str, image: Tensor, severity: int, **params: object) -> Tensor:
    (found,) = change(name, [Sample("one", image)], severity, Context(Shapes()), params=params)
    assert isinstance(found, Sample), found
    return found.image


def flat(value: float, height: int = 128, width: int = 192) -> Tensor:
    return torch.full((3, height, width), value)


def photograph(height: int = 60, width: int = 90, seed: int = 0) -> Tensor:
    """Smooth colours with grain, in 8 bits."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.random((5, 7, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(np.round((0.8 * smooth + 0.2 * rng.random((height, width, 3))).clip(0, 1) * 255) / 255).permute(2, 0, 1).float()


def test_the_nineteen_are_there_and_fog_is_two():
    assert len(CORRUPTIONS) == 19 and len(set(TEST)) == 15 and set(TEST) <= set(CORRUPTIONS)
    assert [each.name for each in select(["distortion"])] == ["benchmark"]
    assert [select([name])[0].family for name in ("fog", "domain.fog", "distortion.fog", "distortion.snow")] == [
        "domain", "domain", "distortion", "distortion",
    ]  # fmt: skip
    assert {name for name in CORRUPTIONS if PROBES[name].moves} == {"elastic_transform", "zoom_blur"}
    with pytest.raises(XaiError, match="name one of its members"):
        change("benchmark", [Sample("one", flat(0.5))], 3, Context(Shapes()))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_size(severity):
    grey = flat(0.5)
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    low, high = np.quantile(changed("gaussian_noise", grey, severity).numpy(), stats.norm.cdf([-1, 1]))
    assert [low, high] == pytest.approx([0.5 - sigma, 0.5 + sigma], abs=0.01)
    speckle = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    low, high = np.quantile(changed("speckle_noise", grey, severity).numpy(), stats.norm.cdf([-1, 1]))
    assert [low, high] == pytest.approx([0.5 - speckle / 2, 0.5 + speckle / 2], abs=0.01)
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    hit = changed("impulse_noise", grey, severity)
    assert [float((hit == value).float().mean()) for value in (0, 1)] == pytest.approx([share / 2, share / 2], abs=0.004)
    assert set(hit.unique().tolist()) == {0.0, 0.5, 1.0}


@pytest.mark.parametrize("value", [0.0, 51 / 255, 51.4 / 255, 1.0])
@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_counts_photons(severity, value):
    photons = (60, 25, 12, 5, 3)[severity - 1]
    found = changed("shot_noise", flat(value), severity).numpy().ravel() * photons
    counts = np.round(found).astype(int)
    assert np.abs(found - counts).max() < 1e-4 and counts.max() <= photons
    expected = stats.poisson.pmf(np.arange(photons + 1), photons * value)
    expected[-1] += stats.poisson.sf(photons, photons * value)
    shares = np.bincount(counts, minlength=photons + 1) / len(counts)
    assert np.abs(shares - expected).max() < 5 * np.sqrt(expected.max() / len(counts))


def test_colours_agree_with_a_plain_hsv():
    image = photograph(6, 9)
    image[:, 0, :3] = torch.tensor([[0.0, 0.4, 1.0]] * 3)  # black, grey, white
    for severity in SEVERITIES:
        add, (factor, more) = severity / 10, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))[severity - 1]
        brighter, gaudy = changed("brightness", image, severity), changed("saturate", image, severity)
        for row, column in np.ndindex(6, 9):
            h, s, v = colorsys.rgb_to_hsv(*image[:, row, column].tolist())
            assert brighter[:, row, column].tolist() == pytest.approx(colorsys.hsv_to_rgb(h, s, min(1, v + add)), abs=1e-5)
            wanted = colorsys.hsv_to_rgb(h, min(1, s * factor + more), v)
            assert gaudy[:, row, column].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_jpeg_and_pixels_agree_with_their_formulas(severity):
    image = photograph()
    mean = image.double().mean((1, 2), keepdim=True)
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    torch.testing.assert_close(changed("contrast", image, severity).double(), (image - mean) * factor + mean, atol=1e-6, rtol=0)
    picture = Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    read = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    assert float((changed("jpeg_compression", image, severity) - read).abs().max()) <= 1.5 / 255
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    coarse = changed("pixelate", image, severity)
    resized = picture.resize((int(90 * share), int(60 * share)), Image.Resampling.BOX).resize((90, 60), Image.Resampling.NEAREST)
    assert torch.equal(coarse, torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255)
    rows = (coarse[:, 1:] != coarse[:, :-1]).any(0).any(1).sum() + 1
    columns = (coarse[:, :, 1:] != coarse[:, :, :-1]).any(0).any(0).sum() + 1
    assert (int(rows), int(columns)) == (int(60 * share), int(90 * share))
    if severity in (2, 5):
        side = round(1 / share)
        blocks = image[:, : 60 // side * side, : 90 // side * side].unfold(1, side, side).unfold(2, side, side).mean((3, 4))
        middle = coarse[:, side // 2 :: side, side // 2 :: side][:, : blocks.shape[1], : blocks.shape[2]]
        assert side == 4 or float((middle - blocks).abs().max()) < 1.01 / 255  # 90 is no multiple of 4


def test_means_are_those_of_pillow_to_the_last_bit():
    rows = np.random.default_rng(0).integers(0, 256, (2048, 40), dtype=np.uint8)
    for length in (*range(1, 130), 375, 500, 1024, 2048):
        for count in {max(1, int(length * share)) for share in (1, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.11, 0.1, 0.055)}:
            theirs = Image.fromarray(rows[:length]).resize((40, count), Image.Resampling.BOX)
            assert np.array_equal(digital.box_means(rows[:length], count), np.asarray(theirs)), (length, count)


def test_a_point_becomes_a_disc_a_line_or_a_bell():
    point = torch.zeros(3, 101, 101)
    point[:, 50, 50] = 1
    down, across = torch.meshgrid(torch.arange(-50, 51), torch.arange(-50, 51), indexing="ij")
    away = (down**2 + across**2).float().sqrt()
    for severity in SEVERITIES:
        disc = changed("defocus_blur", point, severity)[0]
        radius = (3, 4, 6, 8, 10)[severity - 1]
        total = (1, 1, 1, 1.013, 1.0108)[severity - 1]  # as published, softening is mirrored where a disc meets its frame
        assert float(disc.sum()) == pytest.approx(total, abs=2e-4) and float(disc[away > radius + 3].abs().max()) < 1e-6
        inner = disc[away < radius - 2]
        assert float(inner.max() - inner.min()) < 1e-6 and float(disc[50, 50]) == pytest.approx(1 / int((away <= radius).sum()), rel=1e-3)
        bell, sigma = changed("gaussian_blur", point, severity)[0], (1, 2, 3, 4, 6)[severity - 1]
        plain = torch.from_numpy(ndimage.gaussian_filter(point[0].double().numpy(), sigma, mode="nearest", truncate=4))
        torch.testing.assert_close(bell.double(), plain, atol=1e-7, rtol=0)
        streak = changed("motion_blur", point, severity)[0]
        (reach, sigma), hit = blur.MOTION[severity - 1], streak > 0
        weights = np.exp(-(np.arange(2 * reach + 1) ** 2) / (2 * sigma**2))
        assert float(streak.sum()) == pytest.approx(1, abs=1e-5) and 1.4 * reach < int(hit.sum()) <= 2 * reach + 1
        assert float(streak[50, 50]) == pytest.approx(weights[0] / weights.sum(), rel=1e-4)  # and the rest to one side
        places = hit.nonzero().double() - 50
        angle = np.degrees(np.arctan2(*places[places.abs().sum(1).argmax()].tolist()))
        assert abs(angle if abs(angle) < 90 else 180 - abs(angle)) <= 47


@pytest.mark.parametrize("severity", [1, 5])
def test_zoom_agrees_with_a_plain_zoom(severity):
    image = photograph(60, 91)
    picture = image.permute(1, 2, 0).numpy()
    factors = np.arange(1, *blur.ZOOM[severity - 1])
    total = picture.astype(float)
    for factor in factors:
        cut = [int(np.ceil(side / factor)) for side in picture.shape[:2]]
        top, left = ((side - each) // 2 for side, each in zip(picture.shape, cut, strict=False))
        total += ndimage.zoom(picture[top : top + cut[0], left : left + cut[1]], (factor, factor, 1), order=1)[:60, :91]
    found = changed("zoom_blur", image, severity).permute(1, 2, 0).numpy()
    assert float(np.abs(found - total / (len(factors) + 1)).mean()) < 0.2 / 255


@pytest.mark.parametrize(("height", "width", "reach"), [(20, 33, 1), (31, 14, 4), (9, 9, 2), (8, 8, 4)])
def test_glass_fetches_as_a_plain_loop_does(height, width, reach):
    sources = blur.fetched(height, width, reach, np.random.default_rng(1))
    moves = np.random.default_rng(1)
    values = np.arange(height * width).reshape(height, width)
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    steps = moves.integers(-reach, reach, (len(rows), len(columns), 2), dtype=np.int8) if rows and columns else None
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            across, down = steps[i, j]
            values[row, column] = values[row + down, column + across]
    assert np.array_equal(sources.reshape(height, width), values)


def test_both_fogs_are_one_code_with_numbers_of_their_own():
    sample = Sample("one", photograph())
    one, other = (PROBES[name].change(sample, 3, draws(0, "x", 3, "one"), None).image for name in ("fog", "distortion.fog"))
    assert torch.equal(one, other)
    assert not torch.equal(changed("fog", sample.image, 3), changed("distortion.fog", sample.image, 3))


def test_frost_grows_from_the_frame_and_is_as_bright_as_its_photographs():
    for seed, (height, width) in enumerate([(224, 224), (375, 500), (96, 300)]):
        ice = frost.ice(height, width, np.random.default_rng(seed))
        rim = np.ones_like(ice, bool)
        rim[height // 5 : -height // 5, width // 5 : -width // 5] = False
        assert ice[rim].mean() > 1.5 * ice[height // 3 : -height // 3, width // 3 : -width // 3].mean()
        pane = np.array(frost.GLASS)[:, None, None] + np.subtract(frost.ICE, frost.GLASS)[:, None, None] * ice
        assert 0.4 < pane.mean() < 0.7 and 0.09 < pane.mean(0).std() < 0.2  # the six photographs: 0.35 to 0.81, mean 0.59; 0.06 to 0.17


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size_works_and_nothing_but_the_image_is_needed(name):
    for size in ((8, 8), (8, 41), (47, 9), (33, 64)):
        for mode in ("absolute", "relative")[: 1 + (name in SCALED)]:
            for severity in (1, 4, 5):
                found = changed(name, photograph(*size), severity, **({"mode": mode} if name in SCALED else {}))
                assert found.shape == (3, *size) and found.dtype == torch.float32
                assert float(found.min()) >= 0 and float(found.max()) <= 1
    for value in (0.0, 1.0):
        assert bool(torch.isfinite(changed(name, flat(value, 40, 40), 5)).all())


@pytest.mark.long
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_large_frames_work(name):
    for mode in ("absolute", "relative")[: 1 + (name in SCALED)]:
        found = changed(name, photograph(1024, 2048), 5, **({"mode": mode} if name in SCALED else {}))
        assert found.shape == (3, 1024, 2048) and bool(torch.isfinite(found).all())


@pytest.mark.parametrize("name", SCALED)
def test_relative_lengths_are_the_published_ones_at_224(name):
    image = photograph(224, 230)
    for severity in (2, 4):
        assert torch.equal(changed(name, image, severity), changed(name, image, severity, mode="relative"))
    if name == "gaussian_blur":
        plain = ndimage.gaussian_filter(photograph(448, 500)[0].numpy(), 4, mode="nearest", truncate=4)
        assert np.abs(changed(name, photograph(448, 500), 2, mode="relative")[0].numpy() - plain).max() < 1e-5
    with pytest.raises(XaiError, match="absolute"):
        changed(name, image, 3, mode="imagenet")


@pytest.mark.parametrize("severity", [1, 5])
def test_elastic_moves_the_truth_along_exactly(severity):
    where = Context(Shapes())
    before = where.dataset[3]
    masks = torch.zeros(2, 96, 128, dtype=torch.bool)
    masks[0, 20:60, 30:80] = True
    masks[1, 60:90, 90:120] = True
    boxes = torch.tensor([[30.0, 20, 80, 60], [90, 60, 120, 90]])
    semantic = masks[0] * 1 + masks[1] * 2
    before = Sample(
        "one", masks.any(0).float().expand(3, -1, -1).contiguous(), semantic=semantic, boxes=boxes, labels=torch.tensor([0, 1]), masks=masks
    )
    (kept,), (moved,) = (change("elastic_transform", [before], severity, where, params={"labels": each}) for each in ("kept", "moved"))
    assert torch.equal(kept.image, moved.image) and torch.equal(kept.semantic, semantic) and torch.equal(kept.boxes, boxes)
    covered = moved.image[0] > 0.5
    assert float((covered != (moved.semantic > 0)).float().mean()) < 0.002 < float((covered != (semantic > 0)).float().mean())
    assert torch.equal(moved.semantic == 1, moved.masks[0]) and torch.equal(moved.semantic == 2, moved.masks[1])
    for mask, box in zip(moved.masks, moved.boxes, strict=True):
        rows, columns = torch.where(mask.any(1))[0], torch.where(mask.any(0))[0]
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    (alone,) = change("elastic_transform", [replace(before, masks=None)], severity, where, params={"labels": "moved"})
    assert torch.equal(alone.boxes, moved.boxes) and not torch.equal(moved.boxes, boxes)
    (loose,) = change("elastic_transform", [replace(before, masks=None, boxes=boxes + 0.25)], severity, where, params={"labels": "moved"})
    torch.testing.assert_close(loose.boxes, moved.boxes + 0.25)
    with pytest.raises(XaiError, match="kept"):
        change("elastic_transform", [before], severity, where, params={"labels": "lost"})


def test_what_elastic_leaves_nothing_of_is_taken_out():
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 10:40, 10:40] = True
    sample = Sample(
        "one", flat(0.5, 64, 64), boxes=torch.tensor([[10.0, 10, 40, 40], [50, 50, 51, 51]]), labels=torch.tensor([1, 0]), masks=masks,
        ignore=torch.tensor([False, True]),
    )  # fmt: skip
    (after,) = change("elastic_transform", [sample], 3, Context(Shapes()), params={"labels": "moved"})
    assert after.labels.tolist() == [1] and len(after.boxes) == len(after.masks) == len(after.ignore) == 1


def test_other_constants_are_the_published_ones():
    assert blur.GLASS == ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
    assert blur.MOTION == ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    assert blur.ZOOM == ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
    assert weather.FROST == ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    assert [weather.SNOW[index] for index in (0, 1, 4)] == [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ]  # fmt: skip
    assert elastic.STRENGTH == (12.5, 16.25, 21.25, 25.0, 30.0)  # 250 times 0.05, 0.065, 0.085, 0.1, 0.12


def test_tables_of_photons_are_cumulative_poisson():
    for photons in noise.SHOT:
        table = noise._table(photons)
        plain = stats.poisson.cdf(np.arange(photons), np.arange(256)[:, None] / 255 * photons)
        assert np.abs(table[:, :photons] - plain).max() < 1e-6 and table.shape[1] > photons and (table[:, photons:] == 1).all()
