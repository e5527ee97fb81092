"""A segmenter in ONNX Runtime, a black box:  python examples/own_model/onnx_runtime.py segmenter.onnx class,class,..."""

import sys

import onnxruntime
import torch

import xaitools as xt


class OnnxSegmenter:  # any object with task, classes and predict is a model
    def __init__(self, file, classes):
        self.session, self.task, self.classes = onnxruntime.InferenceSession(file), "segmentation", classes

    def predict(self, images):
        (logits,) = self.session.run(None, {self.session.get_inputs()[0].name: images.numpy()})  # (N, C, H, W)
        return [self.prediction(each) for each in torch.from_numpy(logits).softmax(1)]

    def prediction(self, chances):
        best, semantic = chances.max(0)
        labels = torch.bincount(semantic.flatten()).argsort(descending=True)[: len(semantic.unique())]  # by area
        scores = torch.stack([best[semantic == label].mean() for label in labels])
        return xt.Prediction(self.task, tuple(self.classes), tuple(semantic.shape), labels, scores, semantic=semantic)


if __name__ == "__main__":
    image = xt.load_dataset("scenes:test?n=1")[0].image
    model = OnnxSegmenter(sys.argv[1], sys.argv[2].split(","))
    xt.figure(xt.explain(model, image, "top", "occlusion-drise")).savefig("onnx_runtime.png")
