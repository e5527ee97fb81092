"""Feature projection (Zeiler and Fergus 2014, section 2.1): the strongest feature map of a layer, led back to the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Detail, Maps, differentiable, method
from .gradients import scores_of
from .guided_backprop import RECTIFIERS, SMOOTH
from .layers import checked, end_of_encoder, watched


class Rectified(torch.autograd.Function):
    """A rectifier that hands back the positive part of what comes, whatever it let through itself: the deconvnet's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Callable[[Tensor], Tensor]) -> Tensor:
        out = call(x)
        if out.data_ptr() == x.data_ptr():
            ctx.mark_dirty(x)
            return x
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp(min=0), None


class Deconvnet(TorchFunctionMode):
    """Makes the way back that of a deconvnet; the way forward stays.

    Back through a convolution goes its transpose and back through max pooling what the recorded switches say, both as in
    any gradient; only rectifiers differ.  ``seen`` names them.  Without max pooling (``pooled``) and gates nothing of the
    image enters the way back: what is led back then has the shape of the weights (Springenberg et al. 2015).
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, None] = {}
        self.pooled = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = RECTIFIERS.get(func) or SMOOTH.get(func)
        if name is None:
            self.pooled |= "max_pool" in getattr(func, "__name__", "")
            return func(*args, **kwargs)
        x, *rest = args or (kwargs.pop("input"),)
        if not x.requires_grad:
            return func(x, *rest, **kwargs)
        self.seen[name] = None
        return Rectified.apply(x, lambda given: func(given, *rest, **kwargs))


@dataclass(frozen=True, eq=False)
class Response:
    """What a layer gives where a target lies.

    layer     name of the module
    maps      (1, C, h, w)
    cells     (h, w) bool: those that lie in the target's region or box, all of them for a class
    """

    layer: str
    maps: Tensor
    cells: Tensor

    def total(self) -> Tensor:
        """(C,) sum of the positive activations in ``cells``."""
        return self.maps.detach()[0, :, self.cells].clamp(min=0).sum(1)

    def strongest(self, feature: int, name: str) -> int:
        """``feature`` itself, or for -1 the map with the largest total; MethodError if there is none."""
        total = self.total()
        if not -1 <= feature < len(total):
            raise MethodError(
                f"{name}.feature={feature}: {self.layer} has {len(total)} maps; give 0 to {len(total) - 1}, or -1 for the strongest"
            )
        if feature < 0 and not bool(total.any()):
            raise MethodError(f"{self.layer} gives nothing above 0 where the target lies; choose another with {name}.layer")
        return feature if feature >= 0 else int(total.argmax())


@method(
    "feature-projection",
    about=About(
        means=(
            "What has the feature map seen that answers most where the target lies? All other maps are set to zero and the rest is "
            "led back to the image by a deconvnet. The picture shows the pattern that the feature answers to."
        ),
        paper="Zeiler and Fergus 2014, Visualizing and Understanding Convolutional Networks, section 2.1",
        doubt="It shows what a feature answers to, not that the decision rests on it: no class enters the way back.",
    ),
)
def feature_projection(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    layer: str | None = None,
    feature: int = -1,
    part: str = "map",
) -> Maps:
    """What the feature map that responds most to the target has seen: its activations led back by a deconvnet.

    All other maps of the layer are set to 0, and what is left goes back through transposed convolutions, the recorded
    switches of max pooling, and rectifiers that keep the positive part of what comes (section 2.1 of the paper).  The map
    is the largest absolute value over the channels at the network's normalised input, never negative; the picture that
    comes with it shows the signed channels around grey.  Additions hand on to both sides, averages spread evenly, and
    normalisation multiplies by its factor: the paper has none of them.

    layer    a module of the network; by default the end of the encoder, see ``layers.end_of_encoder``
    feature  number of the map in the layer, or -1: the one with the largest sum of positive activations where the target
             lies (its region or its box; of a class everywhere, as in the paper)
    part     map: all cells of the map in the target; peak: its strongest cell alone

    It says what this feature answers to, not that the decision rests on it: the target chooses the place, and no class
    enters the way back.
    """
    if part not in ("map", "peak"):
        raise MethodError(f"feature-projection.part={part!r}; expected map or peak")
    size = (int(image.shape[-2]), int(image.shape[-1]))
    values, scores, details = [], [], []
    with projecting(model) as deconvnet, differentiable(model.normalise(image)) as x:
        for decision in decisions:
            response, value = respond(model, x, decision, layer, "feature-projection")
            number = response.strongest(feature, "feature-projection")
            projection = project(response, number, part, x)
            values.append(projection.abs().amax(0))
            scores.append(value)
            share = float(response.total()[number] / response.total().sum().clamp(min=1e-30))
            used = {"layer": response.layer, "feature": number, "share": share}
            notes = (f"map {number} of {response.layer}, {share:.0%} of its activation there; no class enters the way back",)
            details.append(Detail(used, notes + odd(deconvnet), image=picture(projection)))
    assert values[0].shape == size
    return Maps(torch.stack(values), torch.stack(scores), details=details)


@contextmanager
def projecting(model: Adapter) -> Iterator[Deconvnet]:
    """The way back of a deconvnet inside; MethodError for a module that hides its rectifiers."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.module.modules()):
        raise MethodError(f"{model.name}: a scripted module hides its rectifiers from a deconvnet; use smoothgrad")
    with Deconvnet() as mode:
        yield mode


def odd(deconvnet: Deconvnet) -> tuple[str, ...]:
    """What should be known of the rectifiers that were met."""
    smooth = [name for name in deconvnet.seen if name in SMOOTH.values()]
    if smooth:
        return (f"{', '.join(smooth)} treated as a rectifier",)
    return () if deconvnet.seen else ("no rectifier seen: the plain gradient",)


def respond(model: Adapter, x: Tensor, decision: Decision, layer: str | None, method: str) -> tuple[Response, Tensor]:
    """What ``layer`` gives for the normalised image ``x``, with the graph that leads there, and the target's score."""
    score = scores_of(model, decision)
    seen, value = watched(model, score, x)
    name = end_of_encoder(model, seen) if layer is None else checked(model, seen, layer, decision, method)
    held: list[Tensor] = []

    def hold(module: nn.Module, inputs: Any, out: Tensor) -> Tensor:
        held.append(out)
        return out.clone()  # what follows may write into it

    hook = model.module.get_submodule(name).register_forward_hook(hold)
    try:
        score(x)
    finally:
        hook.remove()
    return Response(name, held[0], cells_of(model, decision, held[0], (int(x.shape[-2]), int(x.shape[-1])))), value


def cells_of(model: Adapter, decision: Decision, maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Which cells (h, w) of maps (1, C, h, w) lie in the target by at least half; at least the one that is nearest to that."""
    place = torch.zeros(size, dtype=maps.dtype, device=maps.device)
    if decision.region is not None:
        place[decision.region.to(place.device)] = 1
    elif decision.box is not None:
        left, top, right, bottom = decision.box.round().int().tolist()
        place[max(0, min(top, size[0] - 1)) : max(1, bottom), max(0, min(left, size[1] - 1)) : max(1, right)] = 1
    else:
        return torch.ones(maps.shape[-2:], dtype=torch.bool, device=maps.device)
    with torch.enable_grad():
        tiles = torch.ones_like(maps[:, :1]).requires_grad_()
        shown = model.onto_image(tiles, size)[0, 0]
        inside, whole = (
            torch.autograd.grad((shown * each).sum(), tiles, retain_graph=True)[0][0, 0] for each in (place, torch.ones_like(place))
        )
    shares = inside / whole.clamp(min=1e-12)
    return shares >= shares.max().clamp(max=0.5)


def project(response: Response, feature: int, part: str, x: Tensor) -> Tensor:
    """Signed (3, H, W) at the normalised image ``x``: one map of the response, led back."""
    kept = torch.zeros_like(response.maps)
    kept[0, feature] = response.maps[0, feature].detach().clamp(min=0) * response.cells
    if part == "peak":
        kept *= kept == kept.amax()
    return torch.autograd.grad(response.maps, x, kept, retain_graph=True)[0][0].detach()


def picture(projection: Tensor) -> Tensor:
    """A projection (3, H, W) as an image in [0, 1]: 0 is grey; the strongest 0.5 % of the values are white or black."""
    limit = projection.abs().flatten().kthvalue(max(1, int(0.995 * projection.numel()))).values
    limit = limit if limit > 0 else projection.abs().amax().clamp(min=1e-30)
    return (0.5 + projection / (2 * limit)).clamp(0, 1).cpu()
