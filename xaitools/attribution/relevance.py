"""Layer-wise relevance propagation (Bach et al. 2015) as methods; the propagation itself is in lrp/."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Maps, method
from .lrp import COMPOSITES, composite, relevance
from .lrp.composites import Composite

MEANS = (
    "Which pixels does the score come from, if every layer deals what it received to its inputs in proportion to what they gave? "
    "The score is handed back layer by layer, and the signed map adds up to it together with what the ledger says was absorbed. "
)
DOUBT = "Biases absorb relevance, often most of it, so never read the map without its ledger{}."
NOT_SIGNED = "; this rule drops what speaks against the score, so that a lack of blue means nothing"
RULES = {
    "lrp": "Convolutions use the z-plus rule, fully connected layers epsilon, and the first layer spreads evenly over what it sees.",
    "lrp-epsilon-plus-flat": "It is what lrp alone means: z-plus for convolutions, epsilon for fully connected layers, flat for the first.",
    "lrp-epsilon-gamma-box": "Convolutions favour what speaks for the score by gamma, and the first layer minds the bounds of the image.",
    "lrp-epsilon-alpha2beta1-flat": "Convolutions count what speaks for the score twice and what speaks against it once.",
    "lrp-epsilon": "Every layer uses the plain rule with a small stabiliser, which in networks of rectifiers is close to gradient x input.",
    "lrp-zplus": "Every layer deals only along what speaks for the score.",
    "lrp-gamma": "Every layer favours what speaks for the score by gamma.",
    "lrp-alpha2beta1": "Every layer counts what speaks for the score twice and what speaks against it once.",
    "lrp-wsquare": "Every layer deals by the squares of its weights, whatever the image holds.",
    "lrp-flat": "Every layer deals evenly, so that the map shows little more than what the score can see.",
}
"""What sets each composite apart, in the words of the dashboard."""
ONE_SIDED = ("lrp-zplus", "lrp-wsquare", "lrp-flat")
PAPER = "Bach et al. 2015, On Pixel-wise Explanations by Layer-wise Relevance Propagation; composites after Montavon et al. 2019"


def _about(name: str) -> About:
    return About(MEANS + RULES[name], PAPER, DOUBT.format(NOT_SIGNED if name in ONE_SIDED else ""))


def propagate(model: Adapter, image: torch.Tensor, decisions: Sequence[Decision], rules: Composite) -> Maps:
    x = model.normalise(image)
    results = relevance(lambda leaf: model.scores_from(leaf, decisions), x, rules, model.parameter_names())
    return Maps(
        torch.stack([each.values[0].sum(0) for each in results]),
        torch.tensor([each.score for each in results], dtype=torch.float64),
        [each.ledger for each in results],
    )


def _register(name: str) -> None:
    @method(name, about=_about(name))
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
