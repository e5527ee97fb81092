"""Weights on disk: safetensors, or a checkpoint of torch that holds nothing but tensors.  Nothing is unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError

MAX_BYTES = 4 * 2**30
CONVERT = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"


def read_weights(path: Path, expected: str | None = None, limit: int = MAX_BYTES) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file as float32; refused when too large, damaged, or not of hash ``expected``."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not path.is_file():
        raise ModelError(f"{path.name}: the weights are missing; get the model's folder again or train it from its recipe")
    if path.stat().st_size > limit:
        raise ModelError(f"{path.name}: {path.stat().st_size} bytes; at most {limit} are read here")
    data = path.read_bytes()
    # a safetensors file starts with eight bytes of length and a brace; its first bytes alone may look like a pickle's
    if data[8:9] != b"{" and (data[:2] == b"PK" or data[:1] == b"\x80"):
        raise ModelError(f"{path.name}: this is a pickle, which could run code; where you trust it, convert it: {CONVERT}")
    if expected is not None and (found := hashlib.sha256(data).hexdigest()) != expected:
        differs = f"sha256 {found[:12]}... is not the card's {expected[:12]}..."
        raise ModelError(f"{path.name}: {differs}; the file was changed or cut short, get it again")
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path.name}: not a readable safetensors file ({error}); get it again") from None
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of ``path``: safetensors, or .pt and .pth if they hold a plain state dict of tensors."""
    if path.suffix not in (".pt", ".pth"):
        return read_weights(path, limit=MAX_BYTES)
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path.name}: no such file of at most {MAX_BYTES // 2**30} GB; expected weights as safetensors")
    try:
        # weights_only: an unpickler that makes tensors and nothing else
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged and hostile archives fail in many ways
        why = type(error).__name__
        raise ModelError(f"{path.name}: not a plain state dict of tensors ({why}); where you trust it, convert it: {CONVERT}") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path.name}: no state dict of tensors; convert it: {CONVERT}")
    wrapped = all(str(key).startswith("module.") for key in state)  # by DataParallel
    return {str(key).removeprefix("module." if wrapped else ""): value for key, value in state.items()}


def load_state(module: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """``state`` into ``module``; refused unless every tensor has its place."""
    own = module.state_dict()
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if wrong:
        came, wanted = tuple(state[wrong[0]].shape), tuple(own[wrong[0]].shape)
        raise ModelError(
            f"{name}: the weights do not fit the network ({wrong[0]} is {came}, expected {wanted}); "
            "does the number of classes agree? give classes=NAME,NAME,... in the order of training"
        )
    # counters of batches are missing in old files and change nothing
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own]
    if missing or extra:
        raise ModelError(f"{name}: the weights lack {missing[:3]} or add {extra[:3]}; they belong to another network")
    module.load_state_dict(dict(state), strict=False)
