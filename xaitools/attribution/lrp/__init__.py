"""Layer-wise relevance propagation, our own: modified gradients per call of an operation, with a ledger.

propagation   relevance(): one forward pass, a backward pass per score
tape          sees the network run; the ledger
operations    how relevance passes through each operation: one entry each
layers        one call of a layer with weights, a batch normalisation behind it merged
rules         one formula each
composites    which layer gets which rule, by name
"""

from .composites import COMPOSITES, Composite, composite
from .propagation import Relevance, layer_names, relevance
from .rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, ZPlus

__all__ = [
    "COMPOSITES", "AlphaBeta", "Composite", "Epsilon", "Flat", "Gamma", "Relevance", "Rule", "WSquare", "ZBox", "ZPlus",
    "composite", "layer_names", "relevance",
]  # fmt: skip
