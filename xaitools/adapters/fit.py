"""How an image is fitted to a network, and how the network's answer gets back to the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Fit:
    """Resized first, then cropped, then padded; each step is linear in the pixels, so relevance passes through it.

    size      (H, W): stretched to exactly that
    shorter   the shorter side becomes so many pixels, the aspect ratio stays
    crop      (H, W): only the middle is seen, as in ImageNet's evaluation; zeros where the image is smaller
    multiple  zeros are added at the right and the bottom until both sides are multiples of it

    >>> Fit(shorter=32, multiple=32)(torch.zeros(1, 3, 40, 60)).shape
    torch.Size([1, 3, 32, 64])
    """

    size: tuple[int, int] | None = None
    shorter: int | None = None
    crop: tuple[int, int] | None = None
    multiple: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        x = _resized(x, self.resized_size(_size(x)))
        if self.crop is not None:
            (height, width), (crop_height, crop_width) = _size(x), self.crop
            top, left = (height - crop_height) // 2, (width - crop_width) // 2
            x = F.pad(x, (-left, left + crop_width - width, -top, top + crop_height - height))
        height, width = _size(x)
        right, bottom = -width % self.multiple, -height % self.multiple
        return F.pad(x, (0, right, 0, bottom)) if right or bottom else x

    def back(self, out: Tensor, size: tuple[int, int], seen: tuple[int, int], mode: str = "bilinear") -> Tensor:
        """A map (N, C, h, w) over a network's input of size ``seen`` as a map over the image of ``size``."""
        if self.crop is not None:
            raise ValueError("a map cannot be led back through a crop")
        inner = self.resized_size(size)
        if inner != seen:  # padded
            out = _scaled(out, seen, mode)[..., : inner[0], : inner[1]]
        return _scaled(out, size, mode)

    def onto_image(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps (N, C, h, w) that tile a network's input as maps over the image of ``size``; 0 where the network did not look."""
        inner = self.resized_size(size)
        frame = self.crop or inner
        seen = (frame[0] + -frame[0] % self.multiple, frame[1] + -frame[1] % self.multiple)
        out = _scaled(maps, seen, "bilinear")[..., : frame[0], : frame[1]]
        top, left = (inner[0] - frame[0]) // 2, (inner[1] - frame[1]) // 2
        return _scaled(F.pad(out, (left, inner[1] - frame[1] - left, top, inner[0] - frame[0] - top)), size, "bilinear")

    def boxes_back(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """xyxy boxes (..., 4) in pixels of the network's input, in pixels of the image of ``size``."""
        height, width = self.resized_size(size)
        down, right = size[0] / height, size[1] / width
        return boxes * torch.tensor([right, down, right, down], dtype=boxes.dtype, device=boxes.device)

    def resized_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of an image of ``size`` before cropping and padding."""
        if self.size is not None:
            return self.size
        if self.shorter is None:
            return size
        scale = self.shorter / min(size)
        return (max(1, int(size[0] * scale + 1e-6)), max(1, int(size[1] * scale + 1e-6)))


def _size(x: Tensor) -> tuple[int, int]:
    return int(x.shape[-2]), int(x.shape[-1])


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if _size(x) == size else F.interpolate(x, size, mode="bilinear", antialias=True)


def _scaled(out: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    if _size(out) == size:
        return out
    if mode == "nearest":
        return F.interpolate(out, size, mode="nearest-exact")
    return F.interpolate(out, size, mode=mode, align_corners=False)
