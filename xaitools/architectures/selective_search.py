"""Selective search (Uijlings, van de Sande, Gevers and Smeulders 2013): where objects may be, before any network looks.

Neighbouring segments of the image are merged, the most alike first (colour, texture, size, fit), and the box around
every segment that ever existed is a proposal.  OpenCV does it; here it stands in the place of a region proposal network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class ExactResize(GeneralizedRCNNTransform):
    """Resizes in double precision, so that the number of threads does not show in the result.

    Segments hang on single grey levels: where the last bit of a resized pixel decides its rounding, other regions come out.
    """

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        resized, target = super().resize(image.double(), target)
        return resized.to(image), target


class SelectiveSearch(nn.Module):
    """(images, features, targets) -> xyxy proposals (R, 4) of each image in pixels, largest first, and no losses.

    mean, std  of the images that come in, so that colours can be had again
    scale      k of the first segmentation (Felzenszwalb and Huttenlocher 2004); smaller finds more and smaller segments
    smallest   sides in pixels below which a box is dropped
    most       no more than so many

    In training, ``targets`` may carry the proposals as ``regions``, xyxy in shares of the image: searching takes longer
    than a network of this size, and light and mirroring do not change what there is to find.
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], scale: int = 40, sigma: float = 0.8, smallest: int = 6, most: int = 2000
    ) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)
        self.scale, self.sigma, self.smallest, self.most = scale, sigma, smallest, most

    def forward(self, images: ImageList, features: Any = None, targets: Any = None) -> tuple[list[Tensor], dict[str, Tensor]]:
        sizes = [images.tensors.new_tensor([width, height] * 2) for height, width in images.image_sizes]
        if targets is not None and all("regions" in target for target in targets):
            return [target["regions"].to(size) * size for target, size in zip(targets, sizes, strict=True)], {}
        std, mean = (images.tensors.new_tensor(value).view(3, 1, 1) for value in (self.std, self.mean))
        shown = [x[:, :height, :width] * std + mean for x, (height, width) in zip(images.tensors, images.image_sizes, strict=True)]
        return [self.search(picture).to(images.tensors) for picture in shown], {}

    def search(self, picture: Tensor) -> Tensor:
        """Proposals (R, 4) of one RGB picture (3, H, W) in [0, 1], without doubles, always in the same order."""
        import cv2

        pixels = (picture.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).flip(0).permute(1, 2, 0).contiguous().numpy()
        engine = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        engine.setBaseImage(pixels)
        engine.switchToSelectiveSearchFast(self.scale, self.scale, self.sigma)
        found = torch.from_numpy(engine.process()).float().view(-1, 4)
        found = torch.unique(torch.cat([found[:, :2], found[:, :2] + found[:, 2:]], 1), dim=0)
        sides = found[:, 2:] - found[:, :2]
        found = found[(sides >= self.smallest).all(1)]
        areas = (found[:, 2:] - found[:, :2]).prod(1)
        return found[areas.argsort(descending=True, stable=True)][: self.most]
