"""What the model says, drawn over the image: boxes, segments, and the place that is explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from torch import Tensor

from ..targets import Target, expand
from ..types import Prediction
from .colours import array, class_colours
from .page import FONT, INCH, LINE, POINT, TINY, extent, fit

_FINE = 500  # pixels of a picture's width for each pixel of a contour
_WIDEST = 22.0  # millimetres of a class name on a box
_ROOMY = 35.0  # millimetres; narrower panels have only numbers on their boxes
_HALO = "white"
_CHOSEN = "black"  # no class has it, and with a white halo it shows on anything


def show(ax: Axes, picture: np.ndarray, size: tuple[int, int]) -> None:
    """An (h, w, 3) picture in the coordinates of an image of ``size`` (H, W), where pixel centres lie at half integers."""
    height, width = size
    ax.imshow(picture, extent=(0, width, height, 0), interpolation="antialiased", interpolation_stage="rgba")
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    ax.spines[:].set_color("0.6")


def shrink(ax: Axes, values: Tensor | np.ndarray) -> np.ndarray:
    """(.., H, W) averaged over whole blocks until it is hardly finer than the dots of ``ax``: big photographs stay quick."""
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    step = _step(ax, values.shape[-2:])
    if step == 1:
        return values
    height, width = (side // step for side in values.shape[-2:])
    blocks = values[..., : height * step, : width * step].reshape(*values.shape[:-2], height, step, width, step)
    return blocks.mean(axis=(-3, -1))


def _step(ax: Axes, size: tuple[int, ...]) -> int:
    return max(1, int(min(size[0] / ax.bbox.height, size[1] / ax.bbox.width)))


def legend(prediction: Prediction | None) -> list[tuple[str, str | None]]:
    """(class, colour) of what was found; of a classification the three best classes with their scores, without colour."""
    if prediction is None:
        return []
    if prediction.task == "classification":
        best = zip(prediction.labels[:3].tolist(), prediction.scores[:3].tolist(), strict=True)
        return [(f"{prediction.classes[label]} {score:.2f}", None) for label, score in best]
    colours = class_colours(prediction.labels.tolist())
    return [(prediction.classes[label], colours[label]) for label in dict.fromkeys(prediction.labels.tolist())]


def draw_prediction(ax: Axes, image: Tensor, prediction: Prediction | None, target: Target | str | None = None) -> None:
    """``image`` (3, H, W) with what was found in it (see ``legend``), and ``target`` in black.

    Boxes carry their number, class and score as far as these do not cover each other.
    """
    size = (image.shape[-2], image.shape[-1])
    picture = np.clip(array(shrink(ax, image)).transpose(1, 2, 0), 0, 1)
    if prediction is None or prediction.task == "classification":
        show(ax, picture, size)
        return
    colours = class_colours(prediction.labels.tolist())
    layers = [(array(prediction.semantic) == label, colours[label]) for label in colours] if prediction.semantic is not None else []
    if prediction.masks is not None:
        layers += [(array(mask) > 0.5, colours[int(label)]) for mask, label in zip(prediction.masks, prediction.labels, strict=True)]
    show(ax, _tinted(picture, layers, _step(ax, size)), size)
    chosen = _parsed(target, prediction) if target is not None else None
    _draw_boxes(ax, prediction, colours, _box_index(chosen, prediction))
    if chosen is not None:
        draw_target(ax, prediction, chosen)


def _tinted(picture: np.ndarray, layers: Sequence[tuple[np.ndarray, str]], step: int) -> np.ndarray:
    """Translucent regions with opaque contours, fine ones also in a small picture."""
    height, width = picture.shape[:2]
    finer = max(1, round(_FINE / width))
    picture = picture.repeat(finer, 0).repeat(finer, 1)
    for region, colour in layers:
        region = region[step // 2 :: step, step // 2 :: step][:height, :width].repeat(finer, 0).repeat(finer, 1)
        cover = (0.45 * region + 0.55 * _rim(region, max(1, round(width / _FINE))))[..., None]
        picture = picture * (1 - cover) + np.array(to_rgb(colour)) * cover
    return picture


def _rim(region: np.ndarray, thickness: int) -> np.ndarray:
    inner = region
    for _ in range(thickness):
        wide = np.pad(inner, 1, mode="edge")
        inner = inner & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return region & ~inner


def _parsed(target: Target | str, prediction: Prediction) -> Target:
    target = Target.parse(target) if isinstance(target, str) else target
    return expand(target, prediction)[0] if target.kind in ("top", "all") else target


def _box_index(target: Target | None, prediction: Prediction) -> int | None:
    """Which of the found boxes is explained; None for a given box."""
    if target is None or prediction.boxes is None:
        return None
    if target.kind == "class":
        return next((i for i, label in enumerate(prediction.labels.tolist()) if prediction.classes[label] == target.name), None)
    return target.index if target.kind in ("box", "mask") and target.index < len(prediction.boxes) else None


def draw_target(ax: Axes, prediction: Prediction, target: Target | str, linewidth: float = 0.8) -> None:
    """The explained place in black with a white halo: a box, one edge of it, the rim of a region, a cross on a pixel."""
    target = _parsed(target, prediction)
    index = _box_index(target, prediction)
    look: dict[str, Any] = {"color": _CHOSEN, "linewidth": linewidth, "path_effects": halo(linewidth)}
    if target.kind == "pixel":
        x, y = (int(each) + 0.5 for each in target.place)
        ax.plot([x], [y], marker="+", markersize=3.5 + 2 * linewidth, markeredgewidth=linewidth, clip_on=False, **look)
    elif target.kind == "given":
        _outline(ax, target.place, linestyle="--", **look)
    elif target.kind == "mask" and prediction.masks is not None and index is not None:
        _contour(ax, array(prediction.masks[index]) > 0.5, linewidth)
    elif index is not None and prediction.boxes is not None:
        x1, y1, x2, y2 = prediction.boxes[index].tolist()
        ends = {"left": ([x1, x1], [y1, y2]), "right": ([x2, x2], [y1, y2]), "top": ([x1, x2], [y1, y1]), "bottom": ([x1, x2], [y2, y2])}
        _outline(ax, (x1, y1, x2, y2), **look | ({"linewidth": linewidth / 2, "path_effects": halo(linewidth / 2)} if target.edge else {}))
        if target.edge:
            ax.plot(*ends[target.edge], **look | {"linewidth": 2 * linewidth, "path_effects": halo(2 * linewidth)})
    elif target.kind == "region" and not target.truth and prediction.semantic is not None and target.name in prediction.classes:
        _contour(ax, array(prediction.semantic) == prediction.classes.index(target.name), linewidth)


def halo(linewidth: float) -> list[patheffects.AbstractPathEffect]:
    return [patheffects.withStroke(linewidth=2 * linewidth + 0.3, foreground=_HALO)]


def _outline(ax: Axes, box: Sequence[float], *, color: str, **look: Any) -> None:
    x1, y1, x2, y2 = box
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, joinstyle="miter", **look))


def _contour(ax: Axes, region: np.ndarray, linewidth: float) -> None:
    # a rim of nothing around it: a region that fills the image has an outline too
    step = _step(ax, region.shape)
    padded = np.pad(region[step // 2 :: step, step // 2 :: step].astype(float), 1)
    ys, xs = ((np.arange(count) - 0.5) * step for count in padded.shape)
    if padded.any():
        ax.contour(xs, ys, padded, levels=[0.5], colors=_CHOSEN, linewidths=linewidth).set_path_effects(halo(linewidth))


def _draw_boxes(ax: Axes, prediction: Prediction, colours: dict[int, str], chosen: int | None) -> None:
    if prediction.boxes is None:
        return
    boxes, labels, scores = prediction.boxes.tolist(), prediction.labels.tolist(), prediction.scores.tolist()
    placed: list[tuple[float, float, float, float]] = []
    for index in sorted(range(len(boxes)), key=lambda index: index != chosen):
        if index != chosen:
            _outline(ax, boxes[index], color=colours[labels[index]], linewidth=0.8)
        [name] = fit(prediction.classes[labels[index]], _WIDEST, TINY, font=_font(ax)) or [""]
        texts = [f"{index} {name} {scores[index]:.2f}"] if index == chosen or _width(ax) >= _ROOMY else []
        colour = _CHOSEN if index == chosen else colours[labels[index]]
        any(label(ax, text, boxes[index], colour, placed) for text in (*texts, str(index)))
        if index == chosen and _share_of(boxes[index], prediction.image_size) < 0.25:
            placed.append(tuple(boxes[index]))  # no other label covers what is explained


def _width(ax: Axes) -> float:
    return ax.bbox.width / ax.figure.dpi * INCH


def _share_of(box: Sequence[float], size: tuple[int, int]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])


def label(ax: Axes, text: str, box: Sequence[float], colour: str, placed: list[tuple[float, float, float, float]]) -> bool:
    """Writes ``text`` at a corner of ``box`` where it lies inside the panel and covers no other; False where it cannot."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    width_mm, height_mm = _width(ax), _width(ax) * ax.bbox.height / ax.bbox.width
    width = (extent(text, TINY, _font(ax)) + 0.6) * (right - left) / width_mm
    height = LINE * TINY * POINT * (bottom - top) / height_mm
    x1, y1, x2, y2 = box
    corners = [(x, y) for y in (y1 - height, y1, y2, y2 - height) for x in (x1, x2 - width)]
    for x, y in corners:
        x, y = min(max(x, left), right - width), min(max(y, top), bottom - height)
        place = (x, y, x + width, y + height)
        if x >= left and y >= top and not any(_overlap(place, other) for other in placed):
            placed.append(place)
            ax.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="none", zorder=4))
            ink = "black" if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.55 else "white"
            ax.text(x + width / 2, y + 0.77 * height, text, size=TINY, color=ink, ha="center", va="baseline", zorder=5, parse_math=False)
            return True
    return False


def _font(ax: Axes) -> str:
    return getattr(ax.figure, "font", FONT)


def _overlap(one: Sequence[float], two: Sequence[float]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
