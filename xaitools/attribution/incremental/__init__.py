"""Exact incremental evaluation: of each window what it can change and the score can see, and nothing else.

``graph`` traces a score, ``operations`` says what is known of each operation, ``plan`` which boxes a window needs, ``run``
computes them.
"""

from .choice import Choice, apart, in_parts
from .plan import batches
from .run import Filling, Incremental

__all__ = ["Choice", "Filling", "Incremental", "apart", "batches", "in_parts"]
