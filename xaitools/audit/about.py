"""What an audit concludes, and when its verdicts should not be trusted."""

from __future__ import annotations

from ..registry import About

ABOUT = {
    "audit": About(
        "Does the model cheat, and by which cue? Probes measure what is lost when one cue alone says something else, and relevance "
        "shows whether decisions rest on the place where that cue is. A model relies on a cue when both say so, and each verdict names "
        "its evidence and what would refute it.",
        "Geirhos et al. 2020, Shortcut learning in deep neural networks; the join of both kinds of evidence is ours",
        "The error rates stand in every report: some strong reliances are missed and some honest models are blamed, and "
        "no evidence means that none was found on these images.",
    ),
    "spray": About(
        "Do some decisions of a class rest on something else than the others? Relevance maps of one class are grouped by likeness, and "
        "each group shows its members and its mean map. What a suspicious group shares is then moved into other images to see whether "
        "the class follows.",
        "Lapuschkin et al. 2019, Unmasking Clever Hans predictors and assessing what machines really learn",
        "Groups of a handful of decisions come about by chance, and a cue that all decisions share makes no group of its own.",
    ),
}
