"""Adversarial: the smallest changes that the model itself says hurt most.  An attack only bounds robustness from above.

gradient      FGSM and PGD for every task, and the random directions that control them
segmentation  SegPGD, CosPGD and an ensemble in the manner of SEA
patch         one patch for all images
objectives    what an attack wants
ascent        how it climbs, whatever it wants
"""

from . import gradient, patch, segmentation
from .ascent import RADII

__all__ = ["RADII", "gradient", "patch", "segmentation"]
