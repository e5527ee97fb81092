"""``smp:NAME?encoder=..&classes=..``: a segmenter of segmentation-models-pytorch.  Encoder weights are never fetched."""

from __future__ import annotations

from pathlib import Path

import torch

from ..adapters import Adapter
from ..errors import ModelError, unknown
from .base import SOURCES, WRAPPING, Spec
from .weights import load_state, read_checkpoint
from .wrapping import default_background, outputs, wrap

KNOWN = ("Unet", "UnetPlusPlus", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "Linknet", "MAnet", "PAN", "UPerNet", "Segformer")


@SOURCES.register("smp")
def open_smp(spec: Spec) -> Adapter:
    """``?weights=`` is a file or none (random, from ``seed``); the image is padded to what the encoder can halve."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise ModelError("smp: models need segmentation-models-pytorch; install it with: pip install 'xaitools[smp]'") from None
    if spec.what not in KNOWN:
        raise ModelError(unknown("smp model", spec.what, KNOWN))
    encoder, source, seed = spec.take("encoder", "resnet18") or "", spec.take("weights"), spec.number("seed", spec.take("seed") or "0")
    classes = spec.classes()
    if source is None or classes is None:
        raise ModelError(f"model {spec.text!r}: give classes=NAME,NAME,... (or their number) and weights=FILE.safetensors (none: random)")
    options = {"multiple": 32} | spec.wrapping()
    spec.done(["encoder", "weights", "classes", "seed", *WRAPPING])
    count = outputs(classes, "segmentation", options.get("background") or default_background("segmentation"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = getattr(smp, spec.what)(encoder, encoder_weights=None, classes=count)
        except (KeyError, ValueError, RuntimeError) as error:
            raise ModelError(f"model {spec.text!r}: no such network ({str(error).splitlines()[0][:200]}); e.g. encoder=resnet18") from None
    if source != "none":
        load_state(module, read_checkpoint(Path(source)), spec.text)
    return wrap(module, task="segmentation", classes=classes, name=spec.text, **options)
