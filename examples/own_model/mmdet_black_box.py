"""A detector behind somebody else's pipeline, as mmdet's inferencer: uint8 BGR pictures in, final boxes out."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

import xaitools as xt


def inference_detector(picture):  # stands for mmdet.apis.inference_detector(network, picture): one box on what is bright
    ys, xs = np.nonzero(picture.mean(2) > 0.8 * picture.mean(2).max())
    box = [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]
    found = {"bboxes": np.float32(box), "labels": np.int64([0]), "scores": np.float32([picture.mean() / 255])}
    return SimpleNamespace(pred_instances=SimpleNamespace(**{key: torch.from_numpy(value) for key, value in found.items()}))


class BlackBox(nn.Module):
    def forward(self, x):
        pictures = (255 * x.flip(1).permute(0, 2, 3, 1)).byte().numpy()  # RGB in [0, 1] to BGR bytes
        answers = [inference_detector(picture).pred_instances for picture in pictures]
        return [{"boxes": each.bboxes, "labels": each.labels, "scores": each.scores} for each in answers]


if __name__ == "__main__":
    model = xt.wrap(BlackBox(), task="detection", classes=["bright"], background="none")
    image = xt.load_dataset("scenes:test?n=1")[0].image
    xt.figure(xt.explain(model, image, "box:0", "occlusion-drise")).savefig("mmdet_black_box.png")
