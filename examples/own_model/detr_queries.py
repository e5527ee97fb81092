"""A DETR-style set predictor: one box and one softmax per query, the last output means "no object"."""

import torch
from torch import nn

import xaitools as xt


class Detr(nn.Module):  # stands for your network; here with random weights
    def __init__(self, queries=8, width=32):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.ReLU())
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.boxes, self.logits = nn.Linear(width, 4), nn.Linear(width, 3 + 1)

    def forward(self, x):
        cells = self.body(x).flatten(2).transpose(1, 2)
        found, _ = self.attention(self.queries.expand(len(x), -1, -1), cells, cells)
        middle, size = self.boxes(found).sigmoid().split(2, -1)  # fractions of the image, centre and size
        corners = torch.cat([middle - size / 2, middle + size / 2], -1)
        return {"boxes": corners * torch.tensor(x.shape[:1:-1]).to(x).repeat(2), "logits": self.logits(found)}


if __name__ == "__main__":
    model = xt.wrap(Detr(), task="detection", classes=["cat", "dog", "owl"], background="last", size=(96, 96), nms=1.0)
    image = xt.load_dataset("scenes:test?n=1")[0].image
    for method in ("saliency", "occlusion"):  # attention has no rule of relevance propagation, which says so
        xt.figure(xt.explain(model, image, "box:0", method)).savefig(f"detr_queries_{method}.png")
