"""Images with truth: one file per dataset layout, and scenes drawn so that their true cue is known."""

from .base import LAYOUTS, Dataset, load_dataset, readable
from .image import read_image

__all__ = ["LAYOUTS", "Dataset", "load_dataset", "read_image", "readable"]
