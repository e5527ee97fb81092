"""The operations through which relevance can pass; what is not in the table is refused by name.

A new operation is one more handler in the file of its kind, or a new file named here.
"""

from . import activations, arithmetic, routing, weighted  # noqa: F401  each fills the table
from .table import OPERATIONS, in_place

IN_PLACE = in_place(OPERATIONS)

__all__ = ["IN_PLACE", "OPERATIONS"]
