"""The contract of every family of networks that xaitools takes from elsewhere, with random weights and odd sizes."""

import pytest
import torch

import xaitools as xt
from tests.families import FAMILIES
from tests.nets import picture, settled
from xaitools.adapters import as_found
from xaitools.attribution import METHODS
from xaitools.attribution.base import differentiable
from xaitools.attribution.receptive_field import receptive_fields
from xaitools.audit.activations import Way
from xaitools.errors import MethodError
from xaitools.targets import bind

REFUSED = {("smp:MAnet", "lrp"): "relevance cannot pass through torch.Tensor.mul|rule cannot be carried through an operation"}
"""(family, start of the method's name) -> what the refusal names: attention has no rule."""

FIELDS = ("labels", "scores", "semantic", "boxes", "anchors", "origins", "masks")


SLOW = (
    "vgg11_bn", "resnet50?", "deeplabv3_resnet50", "retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn", "UnetPlusPlus", "MAnet",
    "maskrcnn", "ssd300", "ssdlite320",
)  # fmt: skip
COSTLY = {"class-model": {"steps": 2}, "drise": {"masks": 8}, "smoothgrad": {"samples": 2}, "integrated-gradients": {"steps": 2}}
QUICK = ("saliency", "gradient-x-input", "lrp", "occlusion")


def marked(values, slow):
    return [pytest.param(value, marks=pytest.mark.long, id=value.partition("?")[0]) if slow(value) else value for value in values]


ALL = marked(FAMILIES, lambda text: any(part in text for part in SLOW))


@pytest.fixture(scope="module", params=ALL, ids=lambda text: text.partition("?")[0])
def model(request):
    made = xt.load_model(request.param, score_threshold=0.0)
    settled(made.module)
    yield made


@pytest.fixture(scope="module")
def images():
    return torch.stack([picture(71, 93, seed) for seed in (0, 1)])


def test_answers_have_the_size_of_the_image_and_are_the_same_twice(model, images):
    for one, other in zip(model.predict(images), model.predict(images), strict=True):
        assert one.image_size == (71, 93) and len(one.labels) > 0 and one.classes == model.classes
        for field in FIELDS:
            first, second = getattr(one, field), getattr(other, field)
            assert (first is None) == (second is None) and (first is None or torch.equal(first, second)), field
        if one.boxes is not None:
            assert bool((one.boxes >= 0).all()) and bool((one.boxes[:, 2:] <= torch.tensor([93.0, 71.0]) + 1e-3).all())


def test_a_batch_of_two_equals_two_singles(model, images):
    predictions = [model.predict(image[None])[0] for image in images]
    decisions = [bind("top", prediction) for prediction in predictions]
    with torch.no_grad():
        both = model.scores(images, decisions)
        singles = torch.stack([model.scores(image[None], [decision])[0] for image, decision in zip(images, decisions, strict=True)])
    torch.testing.assert_close(both, singles, rtol=1e-5, atol=1e-5)
    for one, other in zip(model.predict(images), predictions, strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-5)


def test_a_gradient_reaches_the_image_and_nothing_stays_behind(model, images):
    prediction = model.predict(images[:1])[0]
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    with torch.enable_grad():
        x = model.normalise(images[:1]).requires_grad_()
        (gradient,) = torch.autograd.grad(model.scores_from(x, [bind("top", prediction)]).sum(), x)
    assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().sum()) > 0
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


@pytest.mark.parametrize("method", marked(METHODS, lambda name: name not in QUICK))
def test_every_engine_explains_or_refuses_by_name(model, images, method):
    params = {"window": 48, "stride": 48, "batch_size": 2} if method.startswith("occlusion") else COSTLY.get(method, {})
    family = model.name.partition("?")[0]
    reason = next((why for (name, start), why in REFUSED.items() if name == family and method.startswith(start)), None)
    if METHODS[method].needs == "candidates" and model.task not in ("detection", "instances"):
        reason = f"needs candidates; .* is a {model.task} model that gives none"
    if method == "counterfactual" and model.task == "classification":
        reason = "a classification model finds none and the image has no annotated ones"
    if reason is not None:
        with pytest.raises(MethodError, match=reason):
            xt.explain(model, images[0], "top", method, **params)
        return
    attribution = xt.explain(model, images[0], "top", method, **params)
    assert attribution.values.shape == (71, 93) and bool(torch.isfinite(attribution.values).all())
    if attribution.ledger is not None:
        absorbed = [value for _, value in attribution.ledger]
        gap = attribution.score - float(attribution.values.double().sum()) - sum(absorbed)
        assert abs(gap) <= 1e-5 * (abs(attribution.score) + sum(map(abs, absorbed)) + float(attribution.values.abs().sum()))


@pytest.mark.long
def test_nothing_of_a_feature_map_comes_from_outside_its_receptive_field(model, images):
    with as_found(model), differentiable(model.normalise(images[:1])) as x:
        way = Way.to(model, images[0], None)
        maps = way.maps(x)
        rows, columns, why = receptive_fields(model, x, way.layer, way.decision)
        assert why == "" and (len(rows), len(columns)) == maps.shape[-2:]
        for row, column in ((0, 0), (len(rows) // 2, len(columns) - 1)):
            gradient = torch.autograd.grad(maps[0, :, row, column].sum(), x, retain_graph=True)[0][0]
            (top, bottom), (left, right) = rows[row], columns[column]
            gradient[:, top:bottom, left:right] = 0
            assert not gradient.any()
    assert not any(part._forward_hooks for part in model.module.modules())
