"""Models of any origin behind one protocol; one file per family."""

from .base import Adapter, Model, as_found, check_images
from .candidates import Candidates, objects_of
from .classification import ClassificationModel
from .fit import Fit
from .instances import InstanceModel
from .one_stage import OneStageModel
from .plain import PlainDetector
from .segmentation import SegmentationModel
from .two_stage import TwoStageModel
from .user import UserModel, adapted

__all__ = [
    "Adapter",
    "Candidates",
    "ClassificationModel",
    "Fit",
    "InstanceModel",
    "Model",
    "OneStageModel",
    "PlainDetector",
    "SegmentationModel",
    "TwoStageModel",
    "UserModel",
    "adapted",
    "as_found",
    "check_images",
    "objects_of",
]
