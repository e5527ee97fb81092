"""A segmenter in the manner of transformers: an object with ``.logits`` at a quarter of the input's size."""

from types import SimpleNamespace

from torch import nn

import xaitools as xt


class Segformer(nn.Module):  # stands for AutoModelForSemanticSegmentation.from_pretrained(...); here random weights
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 24, 7, 4, 3), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU())
        self.classifier = nn.Conv2d(24, 4, 1)

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.classifier(self.encoder(pixel_values)))


if __name__ == "__main__":
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # those of your image processor
    model = xt.wrap(Segformer(), task="segmentation", classes=["road", "car", "tree", "sky"], mean=mean, std=std, multiple=32)
    print(xt.check_model(model) or "nothing is missing")
    image = xt.load_dataset("scenes:test?n=1")[0].image
    xt.figure(xt.explain(model, image, "pixel:48,48", "lrp")).savefig("transformers_segmenter.png")
