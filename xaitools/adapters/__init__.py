"""Models of any origin behind one protocol; one file per family."""

from .base import Adapter, Model, as_found, check_images
from .segmentation import SegmentationModel
from .two_stage import TwoStageModel

__all__ = ["Adapter", "Model", "SegmentationModel", "TwoStageModel", "as_found", "check_images"]
