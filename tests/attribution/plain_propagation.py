"""A second, slow and plain relevance propagation to compare with: relevance itself, one operation after the other.

A network is a list of steps.  Every linear step becomes a dense matrix W by sending unit vectors forward, so that
neither autograd nor any code of the package takes part.  A rule is then the table of shares Z (outputs x inputs)
that stands in its paper, and R_in = sum_k Z_kj R_k / (sum_j Z_kj + b_k).  Float64, batch of one, tiny nets.

Beside the activations a step has *shadows* (ones, or lowest and highest values), which the flat, w-square and z-box
rules put in the place of activations; relevance sent to a shadow goes back by the shadow's own values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# name -> rules of the first layer, of convolutions, of fully connected layers
COMPOSITES = {
    "lrp": ("flat", "zplus", "epsilon"),
    "lrp-epsilon-plus-flat": ("flat", "zplus", "epsilon"),
    "lrp-epsilon-gamma-box": ("zbox", "gamma", "epsilon"),
    "lrp-epsilon-alpha2beta1-flat": ("flat", "alphabeta", "epsilon"),
    "lrp-epsilon": ("epsilon",) * 3,
    "lrp-zplus": ("zplus",) * 3,
    "lrp-gamma": ("gamma",) * 3,
    "lrp-alpha2beta1": ("alphabeta",) * 3,
    "lrp-wsquare": ("wsquare",) * 3,
    "lrp-flat": ("flat",) * 3,
}


@dataclass(frozen=True)
class Step:
    """``kind`` is one of

    conv, linear   a layer with weights, a batch normalisation behind it included in ``function``
    route          linear in all of ``inputs``: sums, resizing, RoIAlign, means, ...
    affine         linear with a shift that absorbs
    relu           elementwise through 0, relevance passes
    max            each output one of the inputs of its channel; ``winners`` says which, by place in the plane (2x2 pooling)
    gate           first input times second, which counts as constant
    """

    name: str
    kind: str
    function: Callable[..., Tensor]
    inputs: Sequence[str]
    first: bool = False
    winners: Callable[[Tensor], Tensor] = lambda x: F.max_pool2d(x, 2, return_indices=True)[1]


def matrix(function: Callable[..., Tensor], inputs: Sequence[Tensor], which: int) -> tuple[Tensor, Tensor]:
    """(outputs, inputs) matrix of a function that is affine in the input ``which``, and its value where that is 0."""
    x = inputs[which]
    rest = [torch.zeros_like(other) for other in inputs]

    def at(v: Tensor) -> Tensor:
        return function(*rest[:which], v.reshape(x.shape), *rest[which + 1 :]).reshape(-1)

    offset = at(torch.zeros(x.numel(), dtype=x.dtype))
    columns = [at(unit) - offset for unit in torch.eye(x.numel(), dtype=x.dtype)]
    return torch.stack(columns, dim=1) if columns else offset[:, None][:, :0], offset


def divided(r: Tensor, z: Tensor) -> Tensor:
    return torch.where(z == 0, 0, r / torch.where(z == 0, 1, z))


def shared(Z: Tensor, b: Tensor | float, r: Tensor, epsilon: float) -> Tensor:
    """(outputs, inputs) relevance that each output sends to each input."""
    z = Z.sum(1) + b
    z = torch.where(z >= 0, z + epsilon, z - epsilon)
    return Z * (r / z)[:, None]


def positive(x: Tensor) -> Tensor:
    return torch.maximum(x, torch.zeros_like(x))


def negative(x: Tensor) -> Tensor:
    return torch.minimum(x, torch.zeros_like(x))


def layer_rule(rule: str, W: Tensor, b: Tensor, a: Tensor, shadows: list[Tensor], r: Tensor, p: dict[str, float]) -> list[Tensor]:
    """Relevance of the activations and of each shadow."""
    eps, products, none = p["epsilon"], W * a, [torch.zeros_like(s) for s in shadows]
    b = b * p["biases"]
    if rule == "epsilon":
        return [shared(products, b, r, eps).sum(0), *none]
    if rule == "zplus":
        return [shared(positive(products), positive(b), r, eps).sum(0), *none]
    if rule == "alphabeta":
        plus = shared(positive(products), positive(b), r, eps).sum(0)
        minus = shared(negative(products), negative(b), r, eps).sum(0)
        return [p["alpha"] * plus - p["beta"] * minus, *none]
    if rule == "gamma":
        z = products.sum(1) + b if p["biases"] else p["value"]
        up = shared(products + p["gamma"] * positive(products), b + p["gamma"] * positive(b), r * (z > 0), eps)
        down = shared(products + p["gamma"] * negative(products), b + p["gamma"] * negative(b), r * (z < 0), eps)
        return [(up + down).sum(0), *none]
    if rule == "wsquare":
        return [torch.zeros_like(a), shared(W**2 * shadows[0], b**2, r, eps).sum(0)]
    if rule == "flat":
        return [torch.zeros_like(a), shared((W != 0) * shadows[0], 0.0, r, eps).sum(0)]
    if rule == "zbox":
        low, high = shadows
        Z = products - positive(W) * low - negative(W) * high
        z = Z.sum(1)
        share = (r / torch.where(z >= 0, z + eps, z - eps))[:, None]
        return [(products * share).sum(0), -(positive(W) * low * share).sum(0), -(negative(W) * high * share).sum(0)]
    raise ValueError(rule)


@dataclass(frozen=True)
class Run:
    """One forward pass, for any number of propagations: the value of each step and its matrix for each input."""

    steps: Sequence[Step]
    values: dict[str, Tensor]
    matrices: dict[str, list[tuple[Tensor, Tensor]]]


def run(steps: Sequence[Step], x: Tensor) -> Run:
    values, matrices = {"x": x}, {}
    for step in steps:
        given = [values[name] for name in step.inputs]
        values[step.name] = step.function(*given)
        if step.kind in ("conv", "linear", "route", "affine"):
            matrices[step.name] = [matrix(step.function, given, i) for i in range(len(given))]
        if step.kind == "max":
            winners = step.winners(given[0])
            plane = torch.arange(given[0].shape[1]).reshape(1, -1, 1, 1) * given[0].shape[2] * given[0].shape[3]
            matrices[step.name] = [(F.one_hot((winners + plane).reshape(-1), given[0].numel()).to(x.dtype), torch.zeros(()))]
    return Run(steps, values, matrices)


def shadow(step: Step, inputs: Sequence[Tensor], done: Run, box: bool) -> Tensor:
    """What stands beside the output of a step, given what stands beside its inputs."""
    out = done.values[step.name]
    if step.kind in ("conv", "linear"):
        return torch.ones_like(out)
    if step.kind == "route" or (step.kind == "affine" and box):
        return step.function(*inputs)
    if step.kind == "max":
        return (done.matrices[step.name][0][0] @ inputs[0].reshape(-1)).reshape(out.shape)
    return inputs[0]


def propagate(
    done: Run, composite: str, *, epsilon: float = 1e-6, gamma: float = 0.25, alpha: float = 2.0, beta: float = 1.0,
    biases: bool = True, low: float = -3.0, high: float = 3.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Scores (K,) and input relevance (K, *x.shape); the last step gives the scores."""
    p = dict(epsilon=epsilon, gamma=gamma, alpha=alpha, beta=beta, biases=float(biases))
    steps, values, matrices = done.steps, done.values, done.matrices
    first, conv, linear = COMPOSITES[composite]
    x, box = values["x"], first == "zbox"
    shadows = {"x": [torch.full_like(x, low), torch.full_like(x, high)] if box else [torch.ones_like(x)]}
    for step in steps:
        beside = zip(*(shadows[name] for name in step.inputs), strict=True)
        shadows[step.name] = [shadow(step, inputs, done, box) for inputs in beside]

    scores = values[steps[-1].name]
    maps = []
    for k in range(len(scores)):
        R = {name: [torch.zeros(v.numel(), dtype=x.dtype) for v in (value, *shadows[name])] for name, value in values.items()}
        R[steps[-1].name][0][k] = scores[k]
        for step in reversed(steps):
            lanes = [values, *({name: s[i] for name, s in shadows.items()} for i in range(len(shadows["x"])))]
            if step.kind in ("conv", "linear"):
                (W, b), (source,) = matrices[step.name][0], step.inputs
                rule = first if step.first else linear if step.kind == "linear" else conv
                a, out = values[source].reshape(-1), values[step.name].reshape(-1)
                here = layer_rule(rule, W, b, a, [s.reshape(-1) for s in shadows[source]], sum(R[step.name]), {**p, "value": out})
                R[source] = [before + now for before, now in zip(R[source], here, strict=True)]
                continue
            for lane, value in enumerate(lanes):
                r, z = R[step.name][lane], value[step.name].reshape(-1)
                if step.kind == "gate" or (step.kind == "relu" and lane > 0):
                    R[step.inputs[0]][lane] += r
                elif step.kind == "relu":
                    R[step.inputs[0]][lane] += r * (z != 0)
                elif step.kind == "affine" and lane > 0 and not box:
                    R[step.inputs[0]][lane] += r
                else:
                    for name, (W, _) in zip(step.inputs, matrices[step.name], strict=True):
                        R[name][lane] += value[name].reshape(-1) * (W.T @ divided(r, z))
        maps.append(sum(R["x"]).reshape(x.shape))
    return scores, torch.stack(maps)
