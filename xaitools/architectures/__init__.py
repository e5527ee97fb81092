"""The networks of the model set: one file each, to be read beside the paper's figure."""

from .base import ARCHITECTURES

__all__ = ["ARCHITECTURES"]
