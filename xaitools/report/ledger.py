"""Where a score went: a bar for each layer of a ledger, in the order of the forward pass."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..errors import XaiError
from ..types import Attribution, Explanation, Refusal
from .colours import CLASSES
from .figures import MARGIN, check_look, number
from .page import FONT, SIZE, SMALL, Drawing, Page, style
from .shares import Rows, grouped, is_lrp, ledger_words
from .store import explanations_of

MOST_PANELS = 6
ROW, BAR, HEAD, GAP, LABEL = 4.0, 2.6, 10.0, 5.0, 42.0  # millimetres
IMAGE = "reaches the image"


def ledger_figure(
    result: Attribution | Explanation | Sequence[Attribution | Refusal],
    *,
    image: Tensor | None = None,
    width_mm: float = 180.0,
    dpi: int = 300,
    font: str = FONT,
    titles: bool = True,
) -> Drawing:
    """A panel for each LRP map, at most six: in percent of the score, what reaches the image and what each layer absorbs.

    >>> ledger_figure(attribution).savefig("ledger.pdf")  # doctest: +SKIP
    """
    explanations = explanations_of(result, image)
    kept = [each for explanation in explanations for each in with_ledger(explanation)][:MOST_PANELS]
    if not kept:
        raise XaiError("nothing here has a ledger of layers; explain with lrp or another of its composites")
    look = check_look("single", None, width_mm, dpi, font, titles)
    panels = [[(IMAGE, float(each.values.double().sum())), *grouped(each.ledger or ())] for each in kept]
    head = HEAD if titles else 0.0
    height = MARGIN + sum(head + ROW * len(rows) + GAP for rows in panels)
    with style(font):
        page = Page(look.width, height, look.dpi, font)
        y = MARGIN
        for each, rows in zip(kept, panels, strict=True):
            if titles:
                _title(page, y, each, rows)
            _bars(page, y + head, each.score, rows)
            y += head + ROW * len(rows) + GAP
        return page.drawing


def with_ledger(explanation: Explanation) -> list[Attribution]:
    """LRP's maps: the other ledgers are not of layers."""
    return [each for each in explanation.pairs() if isinstance(each, Attribution) and is_lrp(each.method) and each.ledger and each.score]


def _title(page: Page, y: float, each: Attribution, rows: Rows) -> None:
    width = page.width - 2 * MARGIN
    page.text(MARGIN, y, page.fit(f"{each.target}, {each.method}: score {number(each.score)}", width, SIZE), SIZE, weight="bold")
    page.text(MARGIN, y + 4.2, page.fit(ledger_words(each.score, rows[0][1], each.ledger or ()), width), color="0.35")


def _bars(page: Page, y: float, score: float, rows: Rows) -> None:
    ax = page.axes(MARGIN + LABEL, y, page.width - 2 * MARGIN - LABEL, ROW * len(rows))
    shares = [100 * value / score for _, value in rows]
    colours = [CLASSES[0], *("0.55" if share >= 0 else CLASSES[1] for share in shares[1:])]
    ax.barh(range(len(rows)), shares, height=BAR / ROW, color=colours)
    ax.axvline(0, color="0.2", linewidth=0.5)
    ax.set(ylim=(len(rows) - 0.5, -0.5), xticks=[], yticks=[])
    ax.margins(x=0.12)
    ax.spines[:].set_visible(False)
    for place, ((name, _), share) in enumerate(zip(rows, shares, strict=True)):
        page.text(MARGIN, y + ROW * (place + 0.5) - 1.2, page.fit(name, LABEL - 2))
        ahead = 1 if share >= 0 else -1
        said = f"{share:.1f} %".replace("-", "−")
        ax.annotate(
            said, (share, place), (2.5 * ahead, 0), textcoords="offset points", va="center", ha=("right", "left")[share >= 0], size=SMALL
        )
