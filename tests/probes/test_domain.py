from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.probes.toys import Shapes, reader
from xaitools.data.scenes import Scenes
from xaitools.errors import DataError
from xaitools.probes import PROBES, Context, change, select
from xaitools.probes.domain import _from_opponent, _opponent, _relit, low_amplitudes
from xaitools.types import Sample


def scenes(**options: object) -> Context:
    return Context(Scenes("test", n=6, **options))  # type: ignore[arg-type]


def apply(name: str, sample: Sample, where: Context, severity: int = 1, **params: object) -> Sample:
    (found,) = change(name, [sample], severity, where, params=params)
    assert isinstance(found, Sample), found
    return found


@pytest.mark.parametrize("name", ["rain", "domain.snow", "dusk", "glare"])
def test_severity_moves_the_image_farther(name):
    where = scenes()
    distances = np.zeros(5)
    for index in range(6):
        before = where.dataset[index]
        distances += [float((apply(name, before, where, severity).image - before.image).abs().mean()) for severity in range(1, 6)]
    assert distances[0] > 0 and sorted(distances) == distances.tolist()


def test_weather_does_not_follow_the_size_of_the_image():
    for name in ("rain", "domain.snow"):
        means = []
        for size in (96, 288):
            where = scenes(size=size)
            before = where.dataset[0]
            means.append(float((apply(name, before, where, 3).image - before.image).abs().mean()))
        assert means[0] == pytest.approx(means[1], rel=0.35)


def test_dusk_reddens_lights_and_leaves_dark_images_readable():
    flat = torch.full((3, 64, 64), 0.2)
    flat[:, :, 32:] = 0.9
    after = apply("dusk", Sample("x", flat), scenes(), 5).image
    assert float(after[0, :, 40:].mean()) > 1.3 * float(after[2, :, 40:].mean())  # light is orange
    assert float(after[2, :, :24].mean()) > 1.2 * float(after[0, :, :24].mean())  # shadow is blue
    dark = apply("dusk", Sample("x", torch.full((3, 64, 64), 0.15)), scenes(), 5).image
    assert float(dark.mean()) > 0.1


def test_glare_burns_out_the_source_and_lifts_the_black():
    after = apply("glare", Sample("x", torch.zeros(3, 96, 96)), scenes(), 3).image
    assert float(after.max()) > 0.9999 and float(after.min()) > 0.2
    rows = torch.where((after.min(0).values > 0.99).any(1))[0]
    assert int(rows.float().mean()) < 48  # in the upper half


def test_colour_statistics_are_those_of_the_other_image():
    where = scenes()
    generator = torch.Generator().manual_seed(0)
    other = 0.35 + 0.2 * torch.rand(3, 40, 40, generator=generator) * torch.tensor([1.0, 0.6, 0.3]).view(3, 1, 1)
    before = Sample("a", 0.4 + 0.2 * torch.rand(3, 40, 40, generator=generator))

    class Pair(Shapes):
        def __getitem__(self, index: int) -> Sample:
            return Sample(self.ids[index], other)

    where = Context(Pair())
    after = apply("colour_stats", before, where, 5).image
    assert float(after.min()) > 0 and float(after.max()) < 1  # nothing was cut off
    for reduce in (torch.mean, torch.std):
        assert torch.allclose(reduce(_opponent(after), (1, 2)), reduce(_opponent(other), (1, 2)), atol=2e-4)
    half = apply("colour_stats", before, where, 2).image
    assert torch.allclose(half, before.image + 0.4 * (after - before.image), atol=1e-5)


def test_the_opponent_space_has_its_published_axes_and_an_inverse():
    grey = torch.full((3, 2, 2), 0.4)
    light, alpha, beta = _opponent(grey)[:, 0, 0].tolist()
    assert light == pytest.approx(np.sqrt(3) * np.log10(0.4), abs=2e-3) and abs(alpha) < 2e-3 and abs(beta) < 2e-3
    image = 0.05 + 0.9 * torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(_from_opponent(_opponent(image)), image, atol=1e-4)


def test_only_the_low_amplitudes_change():
    generator = torch.Generator().manual_seed(0)
    image, other = torch.rand(2, 3, 40, 60, generator=generator, dtype=torch.float64)
    for beta in (0.0, 0.05, 0.1):
        found = torch.fft.fftshift(torch.fft.fft2(low_amplitudes(image, other, beta)), dim=(1, 2))
        own, aim = (torch.fft.fftshift(torch.fft.fft2(each), dim=(1, 2)) for each in (image, other))
        reach = int(beta * 40)
        low = torch.zeros(40, 60, dtype=torch.bool)
        low[20 - reach : 20 + reach + 1, 30 - reach : 30 + reach + 1] = True
        assert torch.allclose(found[:, low].abs(), aim[:, low].abs()) and torch.allclose(found[:, ~low], own[:, ~low])
        assert torch.allclose(found[:, low] * own[:, low].conj(), (found[:, low] * own[:, low].conj()).abs().to(found))
    assert torch.allclose(low_amplitudes(image, other, 0.0).mean((1, 2)), other.mean((1, 2)))


def test_another_dataset_may_be_named():
    where = scenes()
    for name in ("colour_stats", "fourier"):
        after = apply(name, where.dataset[0], where, 3, donors="scenes:val?n=3")
        assert after.tags["donor"].startswith("val-")
        assert apply(name, where.dataset[0], where, 3).tags["donor"].startswith("test-")
    (refused,) = change("fourier", [Scenes("test", n=1)[0]], 3, Context(Scenes("test", n=1)))
    assert isinstance(refused, DataError) and "no other image" in str(refused)
    assert "no second image" in Context(Scenes("test", n=1)).lacks(frozenset({"others"}))


def test_grey_and_sketch():
    where = Context(Shapes(), reader("object"))
    before = where.dataset[0]
    after = apply("grey", before, where).image
    pixels = (before.image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    plain = torch.from_numpy(np.asarray(Image.fromarray(pixels).convert("L")).astype(np.float32) / 255)
    assert all(float((channel - plain).abs().max()) < 1.5 / 255 for channel in after)
    assert bool((apply("sketch", Sample("x", torch.full((3, 32, 32), 0.3)), where).image > 0.9999).all())
    line = torch.ones(3, 64, 64) * 0.8
    line[:, 30:32] = 0.1
    drawn = apply("sketch", Sample("x", line), where).image
    assert float(drawn[:, 30:32].max()) < 0.2 and float(drawn[:, :20].min()) > 0.99


def test_its_snow_is_asked_for_with_its_family():
    assert [each.name for each in select(["domain.snow"])] == ["domain.snow"]


def test_colours_come_from_an_image_of_the_same_class_or_of_another():
    where = Context(Shapes(12), reader("object"))
    for index in range(4):
        before = where.dataset[index]
        kinds = [f"{name}_{which}" for name in ("colour", "light", "light_agreed") for which in ("same", "other")]
        for name, same in zip(kinds, [True, False] * 3, strict=True):
            for by in ("truth", "model"):
                donor = where.dataset.ids.index(apply(name, before, where, PROBES[name].severity(5), by=by).tags["donor"])
                assert (donor % 2 == index % 2) is same and donor != index
    lone = Context(Shapes(4, kinds=1), reader("object"))
    (refused,) = change("colour_other", [lone.dataset[0]], 3, lone)
    assert "no fitting donor" in str(refused)


def test_light_is_a_plane_in_logarithms_on_each_object_and_behind_them():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")

    def lit(kind, box, *planes):
        """Level and slopes across and down, in the spread of each region about its middle: behind the object, and on it."""
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        image = torch.zeros(3, 32, 32)
        for region, (level, across, down) in zip((~mask, mask), planes, strict=True):
            x, y = columns[region].double(), rows[region].double()
            spread = max(x.std(correction=0), y.std(correction=0))
            image[:, region] = (level + across * (x - x.mean()) / spread + down * (y - y.mean()) / spread).exp().float()
        return Sample(kind, image, boxes=torch.tensor([box]).float(), labels=torch.tensor([0]), masks=mask[None])

    where = Context(Shapes(2), reader("object"))
    own, other = (-0.9, 0.1, 0.0), (-0.5, -0.1, 0.2)
    before, donor = lit("a", (4, 4, 16, 16), own, other), lit("b", (10, 8, 28, 20), (-1.5, 0.0, 0.3), (-1.0, 0.2, 0.0))
    wanted = lit("a", (4, 4, 16, 16), (-1.5, 0.0, 0.3), (-1.0, 0.2, 0.0))
    after = _relit(before, where, donor, where)
    assert torch.allclose(after.image, wanted.image, atol=1e-5) and not torch.allclose(before.image, wanted.image, atol=0.05)
    assert torch.allclose(_relit(before, where, before, where).image, before.image, atol=1e-5)
    # levels fall by 0.6 behind and 0.5 on the object, slopes go different ways
    darker = lit("a", (4, 4, 16, 16), (-1.4, 0.1, 0.0), (-1.0, -0.1, 0.2))
    assert torch.allclose(_relit(before, where, donor, where, agreed=True).image, darker.image, atol=1e-5)
