"""The size of a thumbnail on a page."""

import numpy as np

from resnext.report.thumbnails import MAX_BYTES, encode


def test_a_thumbnail_of_noise_is_small():
    noise = np.random.default_rng(0).integers(0, 256, (500, 400, 3), dtype=np.uint8)
    assert len(encode(noise)) <= MAX_BYTES
    assert len(encode(noise[:1, :400])) <= MAX_BYTES
