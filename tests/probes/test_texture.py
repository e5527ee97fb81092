from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from tests.probes.toys import CLASSES, SIDE, Shapes, reader
from xaitools.errors import DataError, XaiError
from xaitools.probes import PROBES, Context, change
from xaitools.probes.outlines import carried
from xaitools.probes.synthesis import _bands, _joined, diffused, texture
from xaitools.types import Sample

NAMES = [name for name in PROBES if PROBES[name].family == "texture" and not PROBES[name].measure]


def context(**options: object) -> Context:
    return Context(Shapes(**options), reader("object"))  # type: ignore[arg-type]


def apply(name: str, sample: Sample, where: Context, severity: int = 1, **params: object) -> Sample:
    (found,) = change(name, [sample], severity, where, params=params)
    assert isinstance(found, Sample), found
    return found


@pytest.mark.parametrize("name", NAMES)
def test_nothing_outside_of_objects_changes(name):
    where = context(company=True)
    for severity in (1, 3, 5) if PROBES[name].degrees else (1,):
        before = where.dataset[1]
        after = apply(name, before, where, severity)
        objects = before.masks.any(0)
        assert torch.equal(before.image[:, ~objects], after.image[:, ~objects])
        assert float((before.image != after.image)[:, objects].float().mean()) > 0.7
    nothing = Sample("x", before.image, semantic=torch.zeros(SIDE, SIDE).long(), boxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    (refused,) = change(name, [nothing], 1, where)
    assert isinstance(refused, DataError) and "no object" in str(refused)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_voronoi_moves_each_cell_as_one(severity):
    where = context()
    mask = where.dataset[1].masks
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    image = torch.stack([rows, columns, torch.zeros_like(rows)]) / 64
    after = apply("voronoi", Sample("x", image, masks=mask, boxes=torch.zeros(1, 4), labels=torch.tensor([1])), where, severity)
    found = (after.image[:2] * 64).round().long()
    inside = mask[0][found[0], found[1]]
    assert bool(inside[mask[0]].all())  # only pixels of the object are shown
    moves, counts = (found - torch.stack([rows, columns]))[:, mask[0]].unique(dim=1, return_counts=True)
    cells = {1: 4, 3: 16, 5: 64}[severity]
    # most pixels move with their cell; those completed at the outline move otherwise
    assert float(counts.sort().values[-cells:].sum() / counts.sum()) > 0.5
    still = [int(count) for move, count in zip(moves.T.tolist(), counts, strict=True) if move == [0, 0]]
    assert sum(still) < 0.1 * int(mask.sum())


def test_diffusion_without_edges_is_the_heat_equation():
    height, width, time = 20, 30, 12.0
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    wave = torch.cos(np.pi * 2 * x / width) * torch.cos(np.pi * 1 * y / height)
    decay = (2 - 2 * math.cos(np.pi * 2 / width)) + (2 - 2 * math.cos(np.pi / height))
    image = 0.5 + 0.2 * wave.expand(3, -1, -1)
    after = diffused(image, torch.ones(height, width, dtype=torch.int32), time, contrast=1.0)
    expected = 0.5 + 0.2 * math.exp(-decay * time) * wave
    # the method is of first order in time
    assert float((after - expected).abs().max()) < 0.007 and float((after - image).abs().max()) > 0.05


def test_diffusion_keeps_strong_edges_levels_weak_ones_and_conserves_the_mean():
    image = torch.full((3, 40, 60), 0.2)
    image[:, :, 30:] = 0.8
    image[:, :, :15] += 0.03
    image += 0.02 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    owner = torch.zeros(40, 60, dtype=torch.int32)
    owner[4:36, 4:56] = 1
    for time in (20.0, 400.0):
        after = diffused(image, owner, time, contrast=0.05)
        inside = owner > 0
        assert torch.equal(after[:, ~inside], image[:, ~inside]) and torch.isfinite(after).all()
        assert torch.allclose(after[:, inside].mean(1), image[:, inside].mean(1), atol=1e-5)
        step = float(after[:, 4:36, 33:56].mean() - after[:, 4:36, 4:27].mean())
        assert step > 0.5
        assert float(after.max()) <= float(image.max()) + 0.02 and float(after.min()) >= float(image.min()) - 0.02
    weak = float(after[:, 4:36, 4:10].mean() - after[:, 4:36, 20:26].mean())
    assert weak < 0.01 < 0.6 * 0.03
    parted = owner.clone()
    parted[owner > 0] += (torch.arange(60) >= 20).int().expand(40, -1)[owner > 0]
    apart = diffused(image, parted, 400.0, contrast=1.0)
    for number in (1, 2):
        assert torch.allclose(apart[:, parted == number].mean(1), image[:, parted == number].mean(1), atol=1e-5)


@pytest.mark.parametrize("falling", [True, False])
def test_diffusion_runs_along_slanted_edges(falling):
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    across = y - x if falling else y + x - 47
    image = torch.where(across > 0, 0.8, 0.2).expand(3, -1, -1)
    noisy = image + 0.05 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    after = diffused(noisy, torch.ones(48, 48, dtype=torch.int32), 30.0, contrast=0.05)
    inner = torch.zeros(48, 48, dtype=torch.bool)
    inner[8:40, 8:40] = True
    # the edge stays where it is, and the noise on both sides of it goes
    assert float((after - image)[:, inner & (across.abs() == 3)].abs().mean()) < 0.06
    assert float((after - image)[:, inner & (across.abs() > 12)].abs().mean()) < 0.02


def test_severity_lets_diffusion_run_longer():
    where = context()
    before = where.dataset[1]
    spread = [float(apply("diffusion", before, where, severity).image[:, before.masks[0]].std(1).mean()) for severity in range(1, 6)]
    assert spread == sorted(spread, reverse=True) and spread[-1] < float(before.image[:, before.masks[0]].std(1).mean())
    with pytest.raises(XaiError, match=r"0\.001 to 1"):
        apply("diffusion", before, where, contrast=0.0)


def test_bands_are_a_tight_frame():
    image = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    bands = list(_bands(image))
    assert torch.allclose(_joined(bands), image, atol=1e-5)
    assert float(sum(band.square().sum() for band in bands)) == pytest.approx(float(image.square().sum()), rel=1e-4)


def test_a_texture_has_the_colours_and_the_direction_of_its_model():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    rounded = (y - 32) ** 2 + (x - 32) ** 2 < 28**2
    for wave, axis in ((x, 2), (y, 1)):
        stripes = 0.5 + 0.3 * torch.sin(2 * np.pi * wave / 8)
        image = torch.stack([stripes, 0.2 + 0.5 * stripes, 0.9 - 0.8 * stripes])
        image = torch.where(rounded, image, torch.ones(()))  # white around it, of which nothing may enter
        tile, unit = texture(image, rounded, np.random.default_rng(0))
        assert unit == pytest.approx(math.sqrt(int(rounded.sum())), rel=0.03)
        seen = image[:, rounded].numpy()
        for channel in range(3):
            for share in (0.05, 0.5, 0.95):
                assert np.quantile(tile[..., channel], share) == pytest.approx(np.quantile(seen[channel], share), abs=0.03)
        made = torch.from_numpy(tile).permute(2, 0, 1)
        slopes = [float((made.roll(1, along) - made).square().mean()) for along in (1, 2)]
        assert slopes[axis - 1] > 3 * slopes[2 - axis]
        # periodic: the seam is no edge
        assert float((made[:, 0] - made[:, -1]).abs().mean()) < 1.5 * float((made[:, 1:] - made[:, :-1]).abs().mean()) + 0.01


def test_swap_gives_the_colours_of_the_other_class_and_spares_its_own():
    where = context(company=True)
    for index in range(4):
        before = where.dataset[index]
        after = apply("swap", before, where, 5)
        own, other = before.masks
        assert after.tags["texture_class"] == CLASSES[2 - index % 2] and after.tags["donor"] != before.id
        red = float(after.image[0][own].mean())
        assert (red > 0.45) is (index % 2 == 0)  # discs have little red, squares have more
        assert torch.equal(before.image[:, other], after.image[:, other])
    shares = [float((apply("swap", before, where, severity).image - before.image).abs().mean()) for severity in (1, 3, 5)]
    assert shares == sorted(shares)


def test_surfaces_of_the_own_class_and_of_another():
    where = context(company=True)
    for index in range(4):
        before = where.dataset[index]
        own, other = before.masks
        for name in ("surface_same", "surface_other"):
            after = apply(name, before, where)
            few = [float(after.image[0][mask].mean()) < 0.45 for mask in (own, other)]  # discs have little red, squares have more
            discs = [index % 2 == 0, index % 2 == 1]
            assert few == (discs if name == "surface_same" else [not each for each in discs])
            assert not torch.equal(before.image[:, own], after.image[:, own])
            assert torch.equal(before.image[:, ~(own | other)], after.image[:, ~(own | other)])


def test_a_surface_moves_from_one_outline_to_another():
    """On its own outline, turned and of another size, it is the object again; on another, what was at the edge is at the edge."""
    rows, columns = np.indices((80, 80)) - 39.5
    wedge = (np.abs(columns) < (rows + 25) / 3) & (np.abs(rows) < 25)
    bands = np.stack([0.5 + 0.5 * np.sin(rows / 3), np.clip(0.5 + columns / 40, 0, 1), np.zeros_like(rows)]).astype(np.float32)
    matrix = cv2.getRotationMatrix2D((39.5, 39.5), -90, 0.8)
    there = cv2.warpAffine(wedge.astype(np.float32), matrix, (80, 80)) > 0.5
    wanted = cv2.warpAffine(np.ascontiguousarray(bands.transpose(1, 2, 0)), matrix, (80, 80))
    generator = np.random.default_rng(0)
    found = carried(torch.from_numpy(bands), torch.from_numpy(wedge), there, generator)
    for channel in (0, 1):
        assert np.corrcoef(found[there][:, channel], wanted[there][:, channel])[0, 1] > 0.9

    disc = np.hypot(rows, columns) < 25
    depth = cv2.distanceTransform(np.pad(wedge, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    deep = torch.from_numpy((depth / depth.max()).astype(np.float32)).expand(3, -1, -1).contiguous()
    found = carried(deep, torch.from_numpy(wedge), disc, generator)[..., 0]
    away = 25 - np.hypot(rows, columns)
    assert float(found[disc & (away < 3)].mean()) < 0.25 < 0.5 < float(found[disc & (away > 15)].mean())


def test_silhouettes_and_edges():
    where = context()
    before = where.dataset[0]
    mask = before.masks[0]
    assert not bool(apply("silhouette", before, where).image[:, mask].any())
    mean = apply("silhouette", before, where, colour="mean").image[:, mask]
    assert torch.allclose(mean, before.image[:, mask].mean(1, keepdim=True), atol=1e-5)
    with pytest.raises(XaiError, match="black or mean"):
        apply("silhouette", before, where, colour="red")
    image = torch.full((3, 64, 64), 0.5)
    image[:, :, 32:] = 0.9
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 8:56, 8:56] = True
    drawn = apply("edges", Sample("x", image, masks=mask, boxes=torch.tensor([[8.0, 8, 56, 56]]), labels=torch.tensor([0])), where).image
    lines = drawn[0, 10:54, 10:54] < 0.5
    assert set(drawn[:, 8:56, 8:56].unique().tolist()) == {0.0, 1.0}
    assert bool(lines[:, 19:25].any(1).all()) and not bool(lines[:, :18].any()) and not bool(lines[:, 26:].any())
    assert not bool(drawn[:, 8, 8:56].any())  # the outline
