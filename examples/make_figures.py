"""Makes the figures of the README: python examples/make_figures.py

Drawn scenes, and one image of BCCD (Shenggan, MIT licence) from $XAITOOLS_DATA.
"""

from pathlib import Path

import xaitools as xt
from xaitools.attribution.explanation import explain_image
from xaitools.locations import data_root
from xaitools.report.page import save_figure

FIGURES = Path(__file__).parent / "figures"
METHODS = ["occlusion", "saliency", "lrp"]


def draw(name: str, model: str, dataset: str, index: int, target: str) -> None:
    sample = xt.load_dataset(dataset)[index]
    explanation = explain_image(xt.load_model(model), sample, [target], METHODS)
    save_figure(xt.figure(explanation), FIGURES / f"{name}.png", dpi=130)
    print(f"wrote {FIGURES / name}.png")


draw("segmentation", "unet-scenes", "scenes:test?n=40", 3, "top")
draw("detection", "faster-rcnn-scenes", "scenes:test?n=40", 3, "top")
draw("bccd", "faster-rcnn-bccd", f"voc:{data_root()}/bccd#test", 31, "box:0")
