"""Makes the figures of the README and of the gallery: python examples/make_figures.py [NAME...]

Drawn scenes, and images of BCCD (Shenggan, MIT licence) from $XAITOOLS_DATA.
"""

import sys
from pathlib import Path

import xaitools as xt
from xaitools import zoo
from xaitools.attribution.explanation import explain_image
from xaitools.locations import data_root
from xaitools.report.page import save_figure

FIGURES = Path(__file__).parent / "figures"
METHODS = ["occlusion", "saliency", "lrp"]
BOXES = ["occlusion-drise", "saliency", "lrp"]
BCCD = f"voc:{data_root()}/bccd#test"


def draw(name: str, model: str, dataset: str, index: int, target: str) -> None:
    sample = xt.load_dataset(dataset)[index]
    explanation = explain_image(xt.load_model(model), sample, [target], METHODS)
    save_figure(xt.figure(explanation), FIGURES / f"{name}.png", dpi=130)
    print(f"wrote {FIGURES / name}.png")


def gallery(name: str, models: list[str], dataset: str, index: int, methods: list[str] = METHODS) -> None:
    """One row for each model on the same image, every map on its own scale; a black box has only the first method."""
    sample, rows = xt.load_dataset(dataset)[index], []
    for each in models:
        model = xt.load_model(each)
        model.predict(sample.image[None])  # only now a black box is known to be one
        rows.append(explain_image(model, sample, ["top"], methods[:1] if model.black_box else methods, name=each))
    save_figure(xt.figure(rows, layout="sheet", scale="each", width_mm=160), FIGURES / f"gallery-{name}.png", dpi=100)
    print(f"wrote {FIGURES}/gallery-{name}.png")


def panels(name: str, model: str, dataset: str, index: int, target: str, **options: int) -> None:
    """Zeiler and Fergus' five panels."""
    image = xt.load_dataset(dataset)[index].image
    attribution = xt.explain(xt.load_model(model), image, target, "occlusion-panels", **options)
    save_figure(xt.panels_figure(attribution, image=image), FIGURES / f"{name}.png", dpi=130)
    print(f"wrote {FIGURES / name}.png")


SEGMENTERS = ("patch-classifier", "fcn-full", "deconvnet", "unet", "segnet", "pspnet", "deeplabv3plus")
CLASSIFIERS = ("alexnet", "vgg", "googlenet", "resnet")
DETECTORS = ("dpm", "rcnn", "fast-rcnn", "faster-rcnn", "yolo-v1", "yolo", "mask-rcnn")
FEW_CELLS = 16


def shipped(architectures: tuple[str, ...], data: str) -> list[str]:
    return [name for each in architectures if (name := f"{each}-{data}") in zoo.names()]


DRAWN = {
    "segmentation": lambda: draw("segmentation", "unet-scenes", "scenes:test?n=40", 3, "top"),
    "detection": lambda: draw("detection", "faster-rcnn-scenes", "scenes:test?n=40", 3, "top"),
    "bccd": lambda: draw("bccd", "faster-rcnn-bccd", BCCD, 31, "box:0"),
    "panels": lambda: panels("panels", "faster-rcnn-bccd", BCCD, 0, "box:2", window=48, stride=32),
    "gallery-segmenters": lambda: gallery("segmenters", shipped(SEGMENTERS, "scenes"), "scenes:test?n=40", 3),
    "gallery-classifiers": lambda: gallery("classifiers", shipped(CLASSIFIERS, "scenes"), "scenes:test?n=40&crop=64", 3),
    "gallery-detectors": lambda: gallery("detectors", shipped(DETECTORS, "scenes"), "scenes:test?n=40", 3, BOXES),
    "gallery-bccd": lambda: gallery("bccd", shipped(DETECTORS, "bccd"), BCCD, FEW_CELLS),
}

for wanted in sys.argv[1:] or DRAWN:
    DRAWN[wanted]()
