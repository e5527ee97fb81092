"""What the factors of drawn scenes are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xaitools.data._drawing import BACKGROUNDS, LIGHTS, TEXTURES

FACTORS = {
    "background": BACKGROUNDS, "light": LIGHTS, "texture": TEXTURES, "pose": tuple(f"{72 * turn}°" for turn in range(5)),
    "tag": ("no tag", "tag"), "cooccurrence": ("no companion", "companion"),
}  # fmt: skip
"""The values of each factor that a scene has, in the order of their numbers."""


def told(tags: Mapping[str, Any]) -> str:
    """The factors of a scene in words."""
    return ", ".join(_value(name, tags[name]) for name in FACTORS)


def _value(name: str, value: Any) -> str:
    """A factor in words; one that each object has by itself with all its values.

    >>> _value("background", 1), _value("pose", (0, 2)), _value("tag", True)
    ('background meadow', 'pose 0° and 144°', 'tag')
    """
    said = " and ".join(FACTORS[name][int(each)] for each in (value if isinstance(value, tuple) else (value,)))
    return said if name in ("tag", "cooccurrence") else f"{name} {said}"
