"""Grad-CAM (Selvaraju et al. 2017), for segmentation Seg-Grad-CAM (Vinogradova et al. 2020), by captum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Detail, Maps, differentiable, method
from .gradients import scores_of
from .layers import checked, end_of_encoder, watched


@method(
    "gradcam",
    about=About(
        means=(
            "Where did one layer see what speaks for the target? The maps of the layer are added up, each with the mean of its "
            "gradient as weight, and brought to the size of the image. What speaks against the target is left out unless asked for."
        ),
        paper="Selvaraju et al. 2017, Grad-CAM; for regions Vinogradova, Dibrov and Myers 2020",
        doubt=(
            "The cells are coarse, other objects of the class light up too, and a network with skip connections carries its evidence "
            "past the layer."
        ),
    ),
)
def gradcam(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    layer: str | None = None,
    relu: bool = True,
) -> Maps:
    """Weighted sum of the maps A_k of one layer, brought to the image: where the layer saw what speaks for the target.

    ReLU(sum_k a_k A_k), with a_k the mean over all places of dS/dA_k (equations 1 and 2 of Selvaraju et al.); for a region,
    S is its mean logit (Vinogradova et al. 2020, equation 1).  Never negative, unless ``relu`` is false; no units.

    layer  a module of the network; by default the end of the encoder, see ``end_of_encoder``
    relu   whether what speaks against the target is left out, as in the paper

    On scenes the brightest place of the map lies in the target for every box of ``yolo-scenes``, four in five of
    ``faster-rcnn-scenes``, and one region in eight of ``unet-scenes``, whose evidence goes round the end of its encoder by
    skip connections; the notes say where that is so, and a layer of the decoder (``up.1``) then shows more.
    The cells of the map are taken to tile the network's input.  They are coarse, and the weights are the same at all
    places: other objects of the class light up with the one in question, and what surrounds a cell may be the cause.
    """
    from captum.attr import LayerGradCam

    maps, scores, details = [], [], []
    size = (int(image.shape[-2]), int(image.shape[-1]))
    with differentiable(model.normalise(image)) as x:
        for decision in decisions:
            score = scores_of(model, decision)
            seen, value = watched(model, score, x)
            name = end_of_encoder(model, seen) if layer is None else checked(model, seen, layer, decision, "gradcam")
            cells = LayerGradCam(score, model.module.get_submodule(name)).attribute(x, relu_attributions=relu)
            maps.append(model.onto_image(cells.detach(), size)[0, 0])
            scores.append(value)
            details.append(Detail({"layer": name}, tuple(remarks(model, score, x, name, bool(cells.any()) or not relu))))
    return Maps(torch.stack(maps), torch.stack(scores), details=details)


def remarks(model: Adapter, score: Callable[[Tensor], Tensor], x: Tensor, name: str, speaks: bool) -> Iterator[str]:
    """What one should know of the layer to read its map."""
    if not speaks:
        yield f"{name} has nothing that speaks for the target; see gradcam.relu=false"
    cut = model.module.get_submodule(name).register_forward_hook(lambda module, inputs, out: out.detach())
    try:
        score(x)
        yield f"part of the score goes round {name} by skip connections; see gradcam.layer"
    except MethodError:  # nothing does
        pass
    finally:
        cut.remove()
