"""What attacks leave of every shipped model that gives gradients: python benchmarks/attacks.py [MODEL ...] [--n N] [--probe P] [--set K=V].

With --objectives: what each objective does to a detector at the first radius above 0.
Real data are looked for in $XAITOOLS_DATA.  Prints a row as soon as it is measured.
"""

import argparse
import os
import time

import torch
from torchvision.ops import box_iou

import xaitools as xt
from xaitools.adapters import Model
from xaitools.audit.plan import make_plan
from xaitools.metrics import Table, image_statistics
from xaitools.probes import change

DATA = os.environ.get("XAITOOLS_DATA", "data")
SETS = {
    "camvid": f"camvid:{DATA}/camvid#test",
    "bccd": f"voc:{DATA}/bccd#val+test",
    "penn-fudan": f"penn-fudan:{DATA}/penn-fudan#test",
    "scenes": "scenes:test?n=100",
}
CLASSIFIERS = ("alexnet-scenes", "vgg-scenes", "googlenet-scenes", "resnet-scenes")
TWINS = {
    "unet-scenes-background": "scenes:test?n=100&shortcut=background&rho=1",
    "yolo-scenes-light": "scenes:test?n=100&shortcut=light&rho=1",
    "unet-scenes-tag": "scenes:test?n=100&shortcut=tag&prevalence=1&others=0&rho=1",
    "faster-rcnn-scenes-tag": "scenes:test?n=100&shortcut=tag&prevalence=1&others=0&rho=1",
}
MODELS = (
    "unet-camvid", "faster-rcnn-bccd", "yolo-bccd", "yolo-v1-bccd", "fast-rcnn-bccd", "rcnn-bccd", "mask-rcnn-penn-fudan", "unet-scenes",
    "faster-rcnn-scenes", "pspnet-scenes", "deeplabv3plus-scenes", "segnet-scenes", "deconvnet-scenes", "fcn-full-scenes",
    "patch-classifier-scenes", "yolo-scenes", "yolo-v1-scenes", "mask-rcnn-scenes", "fast-rcnn-scenes", "rcnn-scenes", *CLASSIFIERS,
    *TWINS, "pspnet-camvid", "deeplabv3plus-camvid", "segnet-camvid", "deconvnet-camvid",
)  # fmt: skip


def dataset_of(model: str) -> str:
    if model in CLASSIFIERS:
        return "scenes:test?n=100&crop=64"
    return TWINS.get(model) or next(SETS[name] for name in SETS if model.endswith(name))


def measured(model: Model, dataset: str, probe: str, radii: list[float], n: int, batch: int, **params: object) -> dict[float, float]:
    """The dataset's metric on the images that a run with seed 0 would attack, by radius in 1/255; 0 is unchanged."""
    plan, context = make_plan(model, xt.load_dataset(dataset), [probe], params={probe: {"subset": n}})
    members = plan.members[probe]
    found = {}
    for radius in radii:
        statistics = []
        for indices in grouped(context.dataset, members, batch):
            samples = [context.dataset[index] for index in indices]
            settings = {"eps": radius / 255, **params} if radius else {}
            samples = change(probe, samples, 5 if radius else 0, context, params=settings)
            truths = [context.truth(sample) for sample in samples]
            predictions = model.predict(torch.stack([sample.image for sample in samples]))
            statistics += [image_statistics(*pair) for pair in zip(truths, predictions, strict=True)]
        found[radius] = Table(model.task, model.classes, statistics).metric()
    return {"n": len(members)} | found


def grouped(dataset, members, batch):
    """Batches of images of one size."""
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index in members:
        by_size.setdefault(tuple(dataset[index].image.shape), []).append(index)
    for same in by_size.values():
        yield from (same[start : start + batch] for start in range(0, len(same), batch))


def outcome(model: Model, context, members, batch: int, params: dict[str, object] | None) -> list[float]:
    """Of boxes that score 0.5 or more: how many an image has, share of objects with one of any class (IoU 0.5), share of these
    whose best is of the right class, mean best IoU of objects with boxes of the right class, boxes an image apart from all objects."""
    counts, there, right, overlaps, apart = [], [], [], [], []
    for indices in grouped(context.dataset, members, batch):
        samples = [context.dataset[index] for index in indices]
        changed = change("pgd", samples, 5 if params else 0, context, params=params)
        for sample, found in zip(changed, model.predict(torch.stack([each.image for each in changed])), strict=True):
            truth, sure = context.truth(sample), found.scores >= 0.5
            iou, labels = box_iou(truth.boxes, found.boxes[sure]), found.labels[sure]
            counts.append(int(sure.sum()))
            apart.append(int((iou < 0.3).all(0).sum()))
            for row, label in zip(iou, truth.labels, strict=True):
                there.append(bool((row >= 0.5).any()))
                if there[-1]:
                    right.append(bool(labels[row.argmax()] == label))
                same = row[labels == label]
                overlaps.append(float(same.max()) if len(same) else 0.0)
    return [sum(each) / max(1, len(each)) for each in (counts, there, right, overlaps, apart)]


def print_objectives(names: list[str], eps: float, n: int, batch: int) -> None:
    print("| model | objective | boxes an image | objects with a box | of these named right | IoU of right boxes | boxes apart |")
    print(f"|{'---|' * 7}")
    for name in names:
        model = xt.load_model(name)
        plan, context = make_plan(model, xt.load_dataset(dataset_of(name)), ["pgd"], params={"pgd": {"subset": n}})
        for wanted in ("none", "loss", "class", "box", "vanish", "fabricate"):
            params = None if wanted == "none" else {"eps": eps, "objective": wanted}
            row = outcome(model, context, plan.members["pgd"], batch, params)
            print(f"| {name} | {wanted} | {' | '.join(f'{each:.2f}' for each in row)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--probe", default="pgd")
    parser.add_argument("--radii", default="0,8,64")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="K=V")
    parser.add_argument("--objectives", action="store_true")
    options = parser.parse_args()
    radii = [float(each) for each in options.radii.split(",")]
    if options.objectives:
        print_objectives(options.models, next(each for each in radii if each) / 255, options.n, options.batch)
        raise SystemExit
    print(f"| model, {options.probe} {' '.join(options.set)} | n | {' | '.join(f'{each:g}/255' for each in radii)} | s/image |")
    print(f"|{'---|' * (len(radii) + 3)}")
    for name in options.models:
        start = time.process_time()
        params = dict(pair.split("=") for pair in options.set)
        row = measured(xt.load_model(name), dataset_of(name), options.probe, radii, options.n, options.batch, **params)
        cells = [f"{row[each]:.3f}" for each in radii]
        seconds = (time.process_time() - start) / row["n"]
        print(f"| {name} | {row['n']} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)
