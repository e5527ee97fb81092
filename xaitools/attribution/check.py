"""Is a model fit to be explained?  What is missing, in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..adapters import Adapter, Model, adapted
from ..errors import XaiError
from ..targets import bind
from ..types import Prediction


def check_model(model: Model, size: tuple[int, int] = (96, 128)) -> list[str]:
    """What is missing or wrong with ``model``, a line each; nothing if it can be used.

    Tries it on random images of ``size`` (H, W): the answers' forms, a batch of two against two singles, the same
    answer twice, a gradient that reaches the image.  Lines that begin with "note:" name what it cannot do.
    """
    try:
        known: Adapter = adapted(model)
        images = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0))
        both, again = known.predict(images), known.predict(images)
    except Exception as error:  # a user's own code may raise anything
        return [f"predict failed with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"]
    lines = [line for prediction in both for line in _faults(prediction, known, size)]
    if not lines and not all(_same(one, other) for one, other in zip(both, again, strict=True)):
        lines.append("two calls on the same images gave different answers; is dropout or another random part active?")
    if not lines and not all(_same(one, known.predict(image[None])[0]) for one, image in zip(both, images, strict=True)):
        lines.append("a batch of two gave other answers than the images one by one; is a BatchNorm in train mode?")
    return lines or _notes(known, images, both)


def _faults(prediction: Prediction, model: Adapter, size: tuple[int, int]) -> list[str]:
    lines = []
    count = len(prediction.labels)
    if tuple(prediction.image_size) != size:
        lines.append(f"image_size is {prediction.image_size}; expected that of the image, {size}")
    if tuple(prediction.classes) != model.classes:
        lines.append("the prediction's classes are not the model's")
    if len(prediction.scores) != count:
        lines.append(f"{len(prediction.scores)} scores for {count} labels")
    elif count and not 0 <= float(prediction.scores.min()) <= float(prediction.scores.max()) <= 1:
        lines.append("scores outside [0, 1]; apply the sigmoid or softmax")
    if count and not 0 <= int(prediction.labels.min()) <= int(prediction.labels.max()) < len(model.classes):
        lines.append(f"labels outside 0 to {len(model.classes) - 1}")
    if model.task == "segmentation" and (prediction.semantic is None or tuple(prediction.semantic.shape) != size):
        lines.append(f"no semantic map of the image's size {size}")
    if model.task in ("detection", "instances"):
        if prediction.boxes is None or prediction.boxes.shape != (count, 4):
            lines.append(f"no boxes ({count}, 4), xyxy in pixels of the image")
        elif count and not bool((prediction.boxes[:, 2:] > prediction.boxes[:, :2]).all()):
            lines.append("boxes without area; are they xywh? expected xyxy")
        if bool((prediction.scores.diff() > 0).any()):
            lines.append("boxes are not sorted by falling score")
    return lines


def _same(one: Prediction, other: Prediction) -> bool:
    fields = [(getattr(one, key), getattr(other, key)) for key in ("labels", "scores", "semantic", "boxes")]
    pairs = [(a, b) for a, b in fields if a is not None and b is not None]
    return all(a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-4, rtol=1e-4) for a, b in pairs)


def _notes(model: Adapter, images: Tensor, predictions: Sequence[Prediction]) -> list[str]:
    if model.black_box:
        return ["note: a black box; methods that need logits or gradients refuse it, occlusion-drise works"]
    if not any(len(prediction.labels) for prediction in predictions):
        return ["note: found nothing in random images, so logits and gradients were not tried"]
    try:
        for image, prediction in zip(images, predictions, strict=True):
            if len(prediction.labels):
                with torch.enable_grad():
                    x = model.normalise(image[None]).requires_grad_()
                    score = model.score_pairs(x, [(0, bind("top", prediction))]).sum()
                    (gradient,) = torch.autograd.grad(score, x, allow_unused=True)
                if gradient is None or not bool(torch.isfinite(gradient).all()):
                    return ["note: no finite gradient reaches the image; gradient methods refuse it"]
                break
    except XaiError as error:
        return [f"note: {error}"]
    except Exception as error:
        return [f"scores failed with {type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"]
    return []
