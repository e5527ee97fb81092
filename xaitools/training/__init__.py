"""What runs a recipe."""

from .recipe import read_recipe, run_recipe

__all__ = ["read_recipe", "run_recipe"]
