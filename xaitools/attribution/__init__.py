"""Why a model decided as it did: one file per method, one call for all of them."""

from .base import METHODS, Maps, Method, explain, explain_many, method

__all__ = ["METHODS", "Maps", "Method", "explain", "explain_many", "method"]
