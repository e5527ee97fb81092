"""SmoothGrad (Smilkov et al. 2017): the gradient averaged over noisy copies of the image, by captum."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..adapters import Adapter
from ..errors import MethodError
from ..registry import About
from ..types import Decision
from .base import Maps, differentiable, method
from .gradients import batch_for, scores_of


@method(
    "smoothgrad",
    about=About(
        means=(
            "Which pixels move the score once the fine noise of the gradient is averaged away? The gradient is taken on copies of the "
            "image with different noise and averaged. The map has no sign."
        ),
        paper="Smilkov et al. 2017, SmoothGrad: removing noise by adding noise",
        doubt=(
            "It explains a blurred score: structure finer than the noise is lost, and a model that noise drives out of its data is "
            "explained there, not here."
        ),
    ),
)
def smoothgrad(
    model: Adapter,
    image: Tensor,
    decisions: Sequence[Decision],
    generator: torch.Generator,
    *,
    samples: int = 32,
    noise: float = 0.15,
    batch_size: int = 0,
) -> Maps:
    """Largest absolute value over the channels of the mean gradient of noisy images; never negative.

    M = max_c |1/n sum_i dS(x + e_i)/dx_c|, e_i normal (Smilkov et al. 2017, section 3.1).

    samples     n
    noise       standard deviation as a share of the range, max - min, of the network's normalised input
    batch_size  images at once; 0 chooses by their size

    All targets see the same noise.  It is smoother than the gradient because it belongs to a blurred score: structure
    finer than the noise is lost, and a model that noise drives out of its data is explained there, not here.
    """
    if samples < 1 or noise < 0:
        raise MethodError(f"smoothgrad.samples={samples}, noise={noise}; expected at least one sample and no negative noise")
    from captum.attr import NoiseTunnel, Saliency

    size = batch_for(image, batch_size, samples)
    seed = int(torch.randint(2**62, (), generator=generator))
    gradients, scores = [], []
    with differentiable(model.normalise(image)) as x:
        spread = noise * float(x.detach().max() - x.detach().min())
        for decision in decisions:
            score = scores_of(model, decision)
            scores.append(score(x).detach()[0])
            with global_seed(seed, x.device):  # captum draws from the global generator
                tunnel = NoiseTunnel(Saliency(score))
                mean = tunnel.attribute(x, nt_samples=samples, nt_samples_batch_size=size, stdevs=spread, abs=False)
            gradients.append(mean.detach()[0])
    return Maps(torch.stack(gradients).abs().amax(1), torch.stack(scores), used={"batch_size": size})


_ONE = threading.RLock()


@contextmanager
def global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """The device's global generator starts from ``seed`` inside and goes on outside as if nothing had been drawn.

    One thread at a time: the generator is that of all of them.
    """
    own = [] if device.type == "cpu" else [device]
    with _ONE, torch.random.fork_rng(own, device_type=device.type if own else "cuda"):
        torch.default_generator.manual_seed(seed)
        for each in own:
            home = torch.get_device_module(each)
            with home.device(each):
                home.manual_seed(seed)
        yield
