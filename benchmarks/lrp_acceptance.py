"""Is relevance right on every network?  python -m benchmarks.lrp_acceptance [PART OF A NAME ...]

Every model of the zoo and every family of ``torchvision:`` and ``smp:`` (those with random weights) in float64 on an
image of noise.  A row a network; the columns, by their bounds:

epsilon     with epsilon 1e-14 the map is gradient x input, relative L1 (1e-6): gates, statistics and slopes held fixed
ledger      |score - map - absorbed| by the larger of |score| and |sum of the map|, the worst of five composites (1e-9)
together    several targets in one pass against each alone (1e-10)
z+          the z+ map against gradient x input, relative L1: a fake would give 0
head        the map once the last layer has other weights, relative L1: a fake would give 0
state       parameters, buffers, modes, hooks and flags the same after it
"""

from __future__ import annotations

import sys
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import xaitools as xt
from tests.attribution.frozen import Frozen
from tests.families import FAMILIES
from tests.nets import picture, settled
from xaitools import zoo
from xaitools.adapters import as_found
from xaitools.attribution.lrp import Relevance, composite, relevance
from xaitools.errors import MethodError
from xaitools.targets import EDGES, bind

COMPOSITES = ("lrp", "lrp-epsilon", "lrp-epsilon-gamma-box", "lrp-epsilon-alpha2beta1-flat", "lrp-wsquare")
BOUNDS = {"epsilon": 1e-6, "ledger": 1e-9, "together": 1e-10}


@dataclass(frozen=True)
class Row:
    epsilon: float
    ledger: float
    together: float
    zplus: float
    head: float
    same_state: bool


def prepared(text: str) -> tuple[Any, Tensor]:
    """The model in float64, and its image (1, 3, H, W)."""
    model = zoo.load_model(text, dtype="float64", score_threshold=0.0)
    if ":" in text:
        settled(model.module)
    return model, picture(*((71, 93) if ":" in text else (64, 72)))[None].double()


def decisions_of(model: Any, image: Tensor) -> list[Any]:
    """What the task has: a class, a region and a pixel; or a box, an edge that moved if edges can be explained, and a mask."""
    prediction = model.predict(image)[0]
    targets = ["top"]
    if model.task == "segmentation":
        targets += [f"pixel:{image.shape[-1] // 3},{image.shape[-2] // 2}", f"class:{model.classes[-1]}"]
    elif model.task == "classification":
        targets += [f"class:{name}" for name in model.classes[-2:]]
    elif len(prediction.labels) > 1:
        targets += ["box:1"]
        for target in (f"box:0:{edge}" for edge in EDGES):
            try:
                score = float(relevances(model, image, [bind(target, prediction)], "lrp-epsilon")[0].score)
            except MethodError:  # YOLO's sides are exponents
                break
            if score:
                targets.append(target)
                break
        if prediction.cells is not None:
            targets += [f"mask:{[bool(cells.any()) for cells in prediction.cells].index(True)}"]
    return [bind(target, prediction) for target in targets]


def relevances(model: Any, image: Tensor, decisions: list[Any], name: str, **settings: float) -> list[Relevance]:
    rules = composite(name, **{"low": -5.0, "high": 5.0, **settings})
    return relevance(lambda x: model.scores_from(x, decisions), model.normalise(image), rules, model.parameter_names())


def state(module: nn.Module) -> list[object]:
    tensors = [*module.parameters(), *module.buffers()]
    parts = [(part.training, len(part._forward_hooks), len(part._backward_hooks), len(vars(part))) for part in module.modules()]
    return [*parts, *((id(t), t._version, t.requires_grad, t.grad, t.detach().double().sum().item()) for t in tensors)]


def off(a: Tensor, b: Tensor) -> float:
    """Relative L1."""
    return float((a - b).abs().sum() / b.abs().sum().clamp(min=1e-300))


def measure(text: str) -> Row:
    model, image = prepared(text)
    with as_found(model):
        decisions = decisions_of(model, image)
        before = state(model.module)
        ours = relevances(model, image, decisions, "lrp-epsilon", epsilon=1e-14)
        x = model.normalise(image).requires_grad_()
        with Frozen(), torch.enable_grad():
            scores = model.scores_from(x, decisions)
        gradients = [torch.autograd.grad(score, x, retain_graph=True)[0] * x.detach() for score in scores]
        epsilon = max(off(mine.values, expected) for mine, expected in zip(ours, gradients, strict=True))

        found = {name: relevances(model, image, decisions, name) for name in COMPOSITES}
        gaps = []
        for each in (result for results in found.values() for result in results):
            gap = each.score - float(each.values.sum()) - sum(absorbed for _, absorbed in each.ledger)
            gaps.append(abs(gap) / max(abs(each.score), abs(float(each.values.sum())), 1e-300))
        alone = [relevances(model, image, [decision], "lrp")[0] for decision in decisions]
        together = max(off(one.values, many.values) for one, many in zip(alone, found["lrp"], strict=True))
        zplus = min(off(z.values, g) for z, g in zip(relevances(model, image, decisions, "lrp-zplus"), gradients, strict=True))
        same = state(model.module) == before
        head = off(with_other_head(model, image, decisions[0]), found["lrp"][0].values)
    return Row(epsilon, max(gaps), together, zplus, head, same)


def with_other_head(model: Any, image: Tensor, decision: Any) -> Tensor:
    """The first target's map when the last layer that took part has other weights."""
    result = relevances(model, image, [decision], "lrp")[0]
    modules = dict(model.module.named_modules())
    last = next(name for name, absorbed in reversed(result.ledger) if absorbed and hasattr(modules.get(name), "weight"))
    weight = modules[last].weight
    kept = weight.detach().clone()
    generator = torch.Generator().manual_seed(3)
    weight.data = torch.randn(kept.shape, generator=generator, dtype=kept.dtype) * kept.std()
    try:
        return relevances(model, image, [decision], "lrp")[0].values
    finally:
        weight.data = kept


BLACK_BOXES = ("dpm-scenes",)


def networks() -> list[str]:
    return [name for name in zoo.names() if name not in BLACK_BOXES] + FAMILIES


def main() -> None:
    print("| network | epsilon | ledger | together | z+ | head | state |\n|---|---|---|---|---|---|---|")
    for text in networks():
        name = text.partition("?")[0]
        if len(sys.argv) > 1 and not any(part in name for part in sys.argv[1:]):
            continue
        try:
            *numbers, same = astuple(measure(text))
            cells = [f"{value:.0e}" if value < 0.01 else f"{value:.2f}" for value in numbers] + ["same" if same else "CHANGED"]
        except xt.XaiError as error:
            cells = [f"refused: {error}", *[""] * 5]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
