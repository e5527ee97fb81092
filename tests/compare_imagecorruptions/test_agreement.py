"""Our corruptions against imagecorruptions-imaug, which is put into an environment of its own."""

from __future__ import annotations

import subprocess

import cv2
import numpy as np
import pytest

from tests.compare_imagecorruptions.side_by_side import DRAWN, MOMENTS, environment, pairs

pytestmark = pytest.mark.long


def test_corruptions_agree_with_imagecorruptions_at_equal_random_fields():
    try:
        python = environment()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"imagecorruptions-imaug needs an environment of its own, which could not be made: {error}")
    rng = np.random.default_rng(0)
    images = []
    for height, width in ((48, 80), (97, 61)):
        smooth = cv2.resize(rng.random((6, 8, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        images.append(np.round((0.85 * smooth + 0.15 * rng.random((height, width, 3))).clip(0, 1) * 255).astype(np.uint8))
    found: dict[str, list[float]] = {}
    for _, name, _, ours, theirs in pairs(python, images):
        if name not in (*MOMENTS, *DRAWN):
            found.setdefault(name, []).append(float(np.abs(ours * 255 - theirs).mean()))
        elif name in MOMENTS:
            assert abs(float(ours.mean()) * 255 - theirs.mean()) < 5 and abs(float(ours.std()) * 255 - theirs.std()) < 6
    assert len(found) == 17
    assert {name: max(each) for name, each in found.items() if max(each) > 1} == {}
