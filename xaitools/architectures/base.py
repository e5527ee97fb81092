"""Networks of the model set, by the name that model cards use.

A factory takes ``classes`` (number of outputs; for detectors without background) and the card's own
options, and returns an ``nn.Module`` with random weights.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..errors import ModelError
from ..registry import Registry

ARCHITECTURES: Registry[Callable[..., nn.Module]] = Registry("architecture", "xaitools.architectures", ModelError)
