"""What docstrings claim in examples holds."""

import doctest
import importlib
import pkgutil

import pytest

import xaitools

MODULES = sorted(module.name for module in pkgutil.walk_packages(xaitools.__path__, "xaitools."))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
