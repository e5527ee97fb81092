"""An anchor-free YOLO head: boxes and logits before suppression.

python examples/own_model/yolo_head.py, or: xaitools explain IMAGE --model python:examples/own_model/yolo_head.py:model
"""

import torch
from torch import nn

import xaitools as xt


class YoloHead(nn.Module):  # stands for your network; here with random weights
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 4, 1), nn.SiLU())
        self.head = nn.Conv2d(32, 4 + 3, 1)

    def forward(self, x):
        out = self.head(self.body(x)).flatten(2).transpose(1, 2)  # (N, cells, 4 distances + 3 logits)
        rows, columns = torch.meshgrid(torch.arange(x.shape[2] // 16), torch.arange(x.shape[3] // 16), indexing="ij")
        centres = 16 * torch.stack([columns, rows], -1).flatten(0, 1).to(x) + 8
        near, far = out[..., :2].exp() * 16, out[..., 2:4].exp() * 16
        return {"boxes": torch.cat([centres - near, centres + far], -1), "logits": out[..., 4:]}


model = lambda: xt.wrap(YoloHead(), task="detection", classes=["cat", "dog", "owl"], background="none", size=(96, 96))  # noqa: E731
if __name__ == "__main__":
    image = xt.load_dataset("scenes:test?n=1")[0].image
    xt.figure(xt.explain(model(), image, "box:0", "lrp")).savefig("yolo_head.png")
