"""torchvision's Faster R-CNN on a backbone of your own: every final box is traced to its proposal and logit."""

from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator

import xaitools as xt


def network():  # stands for yours; here with random weights
    backbone = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
    backbone.out_channels = 32
    anchors = AnchorGenerator(sizes=((16, 32),), aspect_ratios=((0.5, 1.0, 2.0),))
    return FasterRCNN(backbone, num_classes=1 + 3, rpn_anchor_generator=anchors, min_size=96, max_size=96)


def model():  # output 0 is background, so the classes begin with output 1
    return xt.wrap(network(), task="detection", classes=["cat", "dog", "owl"])


if __name__ == "__main__":
    image = xt.load_dataset("scenes:test?n=1")[0].image
    maps = xt.explain_many(model(), image, ["box:0", "box:1", "box:0:left"], "lrp")
    for attribution in maps:
        xt.figure(attribution).savefig(f"torchvision_backbone_{attribution.target.replace(':', '_')}.png")
