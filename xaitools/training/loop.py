"""What every training run shares: a schedule, an average of the weights, checkpoints, progress.

A run writes one checkpoint after each epoch (safetensors and JSON, never a pickle) and goes on from it.
The weights that count are an exponential moving average; of its states the best on val is kept.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

State = dict[str, Tensor]


class Average:
    """Exponential moving average of a network's floating-point state; short memory in the first steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state: State = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for key, value in network.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[key].lerp_(value, 1 - decay)
            else:
                self.state[key].copy_(value)


def layout(network: nn.Module) -> torch.memory_format:
    """Channels last, which is quicker, but for networks whose gradient oneDNN then gets wrong.

    Of a 1x1 convolution with a stride and fewer than eight channels it writes past its memory (oneDNN issue 6035): weights
    differ from run to run, or the process dies.
    """
    parts = (part for part in network.modules() if isinstance(part, nn.Conv2d))
    hit = any(each.kernel_size == (1, 1) and max(each.stride) > 1 and each.in_channels // each.groups < 8 for each in parts)
    return torch.contiguous_format if hit else torch.channels_last


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % of the steps, then half a cosine down to 1 % of ``peak``."""
    warm = max(1, steps // 20)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def fit(
    network: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any], Tensor],
    validate: Callable[[], float],
    settings: Mapping[str, Any],
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
) -> State:
    """Trains ``network`` and returns the averaged state that was best on val.

    ``batches(epoch)`` yields the batches of an epoch, the same ones whenever it is asked; ``loss(batch)`` is a
    scalar; ``validate()`` scores the network as it stands, higher is better; a score of ``enough`` ends the run.
    """
    epochs, every = int(settings["epochs"]), int(settings.get("validate_every", 5))
    steps_per_epoch = int(settings["steps_per_epoch"])
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=float(settings.get("weight_decay", 1e-2)))
    average = Average(network, float(settings.get("average", 0.998)))
    best: State = {}
    done, best_score, checkpoint = 0, -1.0, out / "checkpoint.safetensors"
    if resume and checkpoint.is_file():
        done, best_score, best = _restore(checkpoint, network, optimizer, average)
        say(f"goes on after epoch {done} of {epochs}, best val {best_score:.3f}")
    started = time.monotonic()
    for epoch in range(done, epochs):
        if best_score >= float(settings.get("enough", math.inf)):
            say(f"val {best_score:.3f} is enough for this recipe")
            break
        network.train()
        total = 0.0
        for index, batch in enumerate(batches(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps_per_epoch + index, epochs * steps_per_epoch, float(settings["lr"]))
            optimizer.zero_grad()
            value = loss(batch)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            average.update(network)
            total += float(value.detach())
        line = f"epoch {epoch + 1}/{epochs}  loss {total / max(1, steps_per_epoch):.4f}"
        if (epoch + 1) % every == 0 or epoch + 1 == epochs:
            score = _with_state(network, average.state, validate)
            line += f"  val {score:.4f}"
            if score > best_score:
                best_score, best = score, {key: value.clone() for key, value in average.state.items()}
        left = (time.monotonic() - started) / (epoch + 1 - done) * (epochs - epoch - 1)
        say(f"{line}  {left / 60:.1f} min left")
        _save(checkpoint, network, optimizer, average, best, epoch + 1, best_score)
    return best


def _with_state(network: nn.Module, state: State, call: Callable[[], float]) -> float:
    """``call()`` with ``state`` in the network; afterwards the network is as before."""
    kept = {key: value.detach().clone() for key, value in network.state_dict().items()}
    training = network.training
    network.load_state_dict(state)
    network.eval()
    try:
        with torch.no_grad():
            return call()
    finally:
        network.load_state_dict(kept)
        network.train(training)


def _save(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: Average, best: State, epoch: int, score: float
) -> None:
    tensors = {f"network/{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"average/{key}": value for key, value in average.state.items()}
    tensors |= {f"best/{key}": value for key, value in best.items()}
    for index, entry in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in entry.items()}
    facts = {"epoch": epoch, "score": score, "steps": average.steps}
    part = path.with_suffix(".part")
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, part, {"facts": json.dumps(facts)})
    os.replace(part, path)


def _restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> tuple[int, float, State]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {})["facts"])
    tensors = load_file(path)

    def part(prefix: str) -> State:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    network.load_state_dict(part("network/"))
    average.state, average.steps = part("average/"), int(facts["steps"])
    state = optimizer.state_dict()
    for key, value in part("optimizer/").items():
        index, name = key.split("/")
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    return int(facts["epoch"]), float(facts["score"]), part("best/")
