"""The five panels of Zeiler and Fergus (2014, section 4.2 and figure 6), for classifiers, segmenters and detectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision, Panels
from .base import Detail, Maps, Progress, differentiable, method
from .feature_projection import odd, picture, project, projecting, respond
from .sweep import hidden, make_sweep, spread, starts

NOTHING = "nothing"
NAME = "occlusion-panels"


@method(
    NAME,
    about=About(
        means=(
            "What happens inside the network while a window hides one part after another? Five panels show the window, a feature "
            "map's activation, that map led back to the image, the probability, and the most probable class. The map is the mean fall "
            "of the probability."
        ),
        paper="Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, figure 6",
        doubt=("A probability near 1 hardly moves whatever is hidden, and the one watched feature map need not carry the decision."),
    ),
)
def occlusion_panels(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    window: int = 0,
    stride: int = 0,
    fill: str = "mean",
    layer: str | None = None,
    feature: int = -1,
    batch_size: int = 0,
    progress: Progress | None = None,
) -> Maps:
    """Mean fall of the target's probability over the windows that hide a pixel, and what else the network does meanwhile.

    The panels that come with it (``Attribution.panels``, the figure ``panels``) show, one sweep for all targets: the
    image with the window where it hurts most; at each position of the window how strongly the feature map that answers
    most to the target still does; that map led back to the image; the probability of the target's class; and the most
    probable class.  The target stays what it was: probabilities and classes are those of the same pixels (their mean) or
    of the same proposal.

    window, stride, fill  as of ``occlusion``
    layer, feature        the map that is watched, as of ``feature-projection``
    """
    for decision in decisions:
        if decision.edge is not None or decision.cells is not None or decision.versus is not None:
            raise MethodError(f"target {decision.target}: {NAME} shows the probability of a class, region or box; drop the rest")
    plan = make_sweep(image, generator, window, stride, fill, batch_size, name=NAME)
    places = plan.places
    watches, notes = _watched(model, image, decisions, layer, feature)
    readings = [
        replace(decision, class_index=index, reading="probability") for decision in decisions for index in range(len(model.classes))
    ]

    def looked(batch: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (K, classes, N) and activations (K, N)."""
        with torch.no_grad(), _activations(model, watches) as activations:
            table = model.score_table(batch, readings)
        return table.double().cpu().view(len(decisions), -1, len(batch)), torch.stack(activations).cpu()

    clean, active = looked(image.expand(plan.size, -1, -1, -1))
    probabilities, activations = torch.empty(*clean.shape[:2], len(places)).double(), torch.empty(len(decisions), len(places)).double()
    for chosen, batch in hidden(plan):
        table, sums = looked(batch)
        probabilities[..., list(chosen)] = table[..., : len(chosen)]
        activations[:, list(chosen)] = sums[:, : len(chosen)]
        if progress is not None:
            progress(chosen[-1] + 1, len(places))
    tops, lefts = (torch.tensor(starts(int(length), plan.window, plan.stride)) for length in image.shape[-2:])
    falls = torch.stack([clean[k, each.class_index, 0] - probabilities[k, each.class_index] for k, each in enumerate(decisions)])
    details = []
    for k, (decision, watch) in enumerate(zip(decisions, watches, strict=True)):
        mine = probabilities[k, decision.class_index]
        worst = int(mine.argmin())
        top, left, bottom, right = places[worst]
        occluded = image[0].clone()
        occluded[:, top:bottom, left:right] = plan.filling(worst)[0, :, top:bottom, left:right]
        grid = (len(tops), len(lefts))
        chances = torch.cat([probabilities[k], (1 - probabilities[k].sum(0, keepdim=True))])
        panels = Panels(
            plan.window, tops, lefts, occluded.cpu(), watch.layer, watch.feature, activations[k].view(grid), float(active[k, 0]),
            watch.projection, mine.view(grid), float(clean[k, decision.class_index, 0]), chances.argmax(0).view(grid),
            (*model.classes, NOTHING),
        )  # fmt: skip
        details.append(Detail({"layer": watch.layer, "feature": watch.feature}, notes, panels=panels))
    scores = torch.stack([clean[k, decision.class_index, 0] for k, decision in enumerate(decisions)])
    used = {"window": plan.window, "stride": plan.stride, "batch_size": plan.size, "score": "probability"}
    return Maps(spread(plan, falls), scores, used=used, details=details)


@dataclass(frozen=True, eq=False)
class Watch:
    """The feature map of one target: ``cells`` (h, w) are those that lie in it, ``projection`` (3, H, W) the map led back."""

    layer: str
    feature: int
    cells: Tensor
    projection: Tensor


def _watched(
    model: Adapter, image: Tensor, decisions: Sequence[Decision], layer: str | None, feature: int
) -> tuple[list[Watch], tuple[str, ...]]:
    watches = []
    with projecting(model) as deconvnet, differentiable(model.normalise(image)) as x:
        for decision in decisions:
            response, _ = respond(model, x, decision, layer, NAME)
            number = response.strongest(feature, NAME)
            watches.append(Watch(response.layer, number, response.cells, picture(project(response, number, "map", x))))
        return watches, odd(deconvnet)


@contextmanager
def _activations(model: Adapter, watches: Sequence[Watch]) -> Iterator[list[Tensor]]:
    """Of each watch the sum (N,) of positive activations in its cells, once the network has run inside."""
    found: list[Any] = [None] * len(watches)

    def note(number: int, watch: Watch) -> Any:
        def hook(module: nn.Module, inputs: Any, out: Tensor) -> None:
            found[number] = out[:, watch.feature][:, watch.cells].double().clamp(min=0).sum(1)

        return hook

    hooks = [model.module.get_submodule(watch.layer).register_forward_hook(note(k, watch)) for k, watch in enumerate(watches)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
