"""One call of a convolution or a fully connected layer, as the affine map that the rules take apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

CONVOLUTIONS: Mapping[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: Mapping[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True, eq=False)
class Affine:
    """``scale * (raw_weight a + raw_bias) + shift`` per output channel, from an input of ``input_shape``.

    ``scale`` and ``shift`` (shape (C,)) are those of a batch normalisation behind the layer.  They are merged
    into ``weight`` and ``bias`` when a rule first asks, in the backward pass; nothing is computed again forward.
    """

    kind: str  # "linear", "conv" or "conv_transpose"
    raw_weight: Tensor
    raw_bias: Tensor | None
    input_shape: torch.Size
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    scale: Tensor | None = None
    shift: Tensor | None = None

    @property
    def dims(self) -> int:
        """Spatial dimensions: 0 for a fully connected layer."""
        return 0 if self.kind == "linear" else self.raw_weight.dim() - 2

    @property
    def channels(self) -> int:
        return self.raw_weight.shape[1] * self.groups if self.kind == "conv_transpose" else self.raw_weight.shape[0]

    def per_channel(self, constant: Tensor) -> bool:
        """Does a constant that is broadcast against the output hold one number per output channel?"""
        axis = -1 - self.dims
        return constant.dim() >= -axis and constant.shape[axis] == self.channels == constant.numel()

    def then(self, scale: Tensor | None = None, shift: Tensor | None = None) -> Affine:
        """This layer followed by ``scale * out + shift``, both with one number per output channel."""
        merged_scale, merged_shift = self.scale, self.shift
        if scale is not None:
            scale = scale.detach().reshape(-1)
            merged_scale = scale if merged_scale is None else merged_scale * scale
            merged_shift = None if merged_shift is None else merged_shift * scale
        if shift is not None:
            shift = shift.detach().reshape(-1)
            merged_shift = shift if merged_shift is None else merged_shift + shift
        return replace(self, scale=merged_scale, shift=merged_shift)

    @property
    def weight(self) -> Tensor:
        w = self.raw_weight
        if self.scale is None:
            return w
        if self.kind != "conv_transpose":
            return w * self.scale.reshape(-1, *[1] * (w.dim() - 1))
        grouped = w.reshape(self.groups, -1, *w.shape[1:])  # (G, in/G, out/G, ...): output channels are the third axis
        return (grouped * self.scale.reshape(self.groups, 1, -1, *[1] * self.dims)).reshape(w.shape)

    @property
    def bias(self) -> Tensor:
        """(C, 1, ...) so that it adds to the output; zeros where the layer has none."""
        b = self.raw_weight.new_zeros(self.channels) if self.raw_bias is None else self.raw_bias
        b = b if self.scale is None else b * self.scale
        b = b if self.shift is None else b + self.shift
        return b.reshape(-1, *[1] * self.dims)

    def out(self, a: Tensor, w: Tensor) -> Tensor:
        """``w a``: the layer without bias, with weights ``w`` in place of its own."""
        if self.kind == "linear":
            return F.linear(a, w)
        if self.kind == "conv":
            return CONVOLUTIONS[self.dims](a, w, None, self.stride, self.padding, self.dilation, self.groups)
        return TRANSPOSED[self.dims](a, w, None, self.stride, self.padding, self.output_padding, self.groups, self.dilation)

    def back(self, s: Tensor, w: Tensor) -> Tensor:
        """``w^T s``: what the layer with weights ``w`` sends back from its output to its input."""
        if self.kind == "linear":
            return s @ w
        if self.kind == "conv_transpose":
            return CONVOLUTIONS[self.dims](s, w, None, self.stride, self.padding, self.dilation, self.groups)
        sizes = self.input_shape[-self.dims :], s.shape[-self.dims :], w.shape[2:], self.stride, self.padding, self.dilation
        unseen = [  # rows at the end that the stride left out: they get nothing
            before - ((after - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for before, after, kernel, stride, padding, dilation in zip(*sizes, strict=True)
        ]
        return TRANSPOSED[self.dims](s, w, None, self.stride, self.padding, unseen, self.groups, self.dilation)
