"""Layer-wise relevance propagation (Bach et al. 2015) as methods; the propagation itself is in lrp/."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..adapters import Adapter
from ..errors import MethodError
from ..types import Decision
from .base import Maps, method
from .lrp import COMPOSITES, composite, relevance
from .lrp.composites import Composite


def propagate(model: Adapter, image: torch.Tensor, decisions: Sequence[Decision], rules: Composite) -> Maps:
    x = model.normalise(image)
    results = relevance(lambda leaf: model.scores_from(leaf, decisions), x, rules, model.parameter_names())
    return Maps(
        torch.stack([each.values[0].sum(0) for each in results]),
        torch.tensor([each.score for each in results], dtype=torch.float64),
        [each.ledger for each in results],
    )


def _register(name: str) -> None:
    @method(name)
    def lrp(
        model: Adapter,
        image: torch.Tensor,
        decisions: Sequence[Decision],
        generator: torch.Generator,
        *,
        epsilon: float = 1e-6,
        gamma: float = 0.25,
        alpha: float = 2.0,
        beta: float = 1.0,
        biases: str = "absorb",
    ) -> Maps:
        """Signed relevance of each pixel for the score; score = sum of the map + what the ledger says was absorbed.

        ``biases`` absorb relevance, as the formula says, or are left out ("ignore"), which explodes in deep networks.
        """
        if biases not in ("absorb", "ignore"):
            raise MethodError(f"{name}.biases={biases!r}; expected absorb or ignore")
        if epsilon <= 0 or alpha - beta != 1:
            raise MethodError(f"{name}: epsilon={epsilon}, alpha={alpha}, beta={beta}; epsilon must be positive and alpha - beta = 1")
        # the image lies in [0, 1], so these are the bounds of what the network sees
        low, high = (tuple(model.normalise(torch.full((1, 3, 1, 1), bound)).flatten().tolist()) for bound in (0.0, 1.0))
        rules = composite(name, epsilon=epsilon, gamma=gamma, alpha=alpha, beta=beta, biases=biases, low=low, high=high)
        return propagate(model, image, decisions, rules)


for _name in COMPOSITES:
    _register(_name)
