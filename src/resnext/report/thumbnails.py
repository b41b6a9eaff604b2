"""Thumbnails: pixels as small JPEG files within the page."""

import base64
import io

import numpy as np
from PIL import Image

from resnext.report.html import Html, tag

SIDE = 128  # pixels, twice the width on a page, for fine displays
MAX_BYTES = 9_000  # of a file; a page has at most 128
QUALITIES = (85, 70, 50, 30, 10)


def thumbnail(pixels: np.ndarray, caption: Html, alt: str) -> Html:
    """A figure of uint8 [height, width, 3]; caption below."""
    picture = tag("img", src=f"data:image/jpeg;base64,{base64.b64encode(encode(pixels)).decode()}", alt=alt)
    return tag("figure", picture, tag("figcaption", caption))


def encode(pixels: np.ndarray) -> bytes:
    """JPEG of at most SIDE pixels. Small images are enlarged without smoothing, so that their pixels stay visible."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    longest = max(image.size)
    if longest > SIDE:
        size = (max(1, round(image.width * SIDE / longest)), max(1, round(image.height * SIDE / longest)))
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    elif (times := SIDE // longest) > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    data = b""
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, subsampling=0 if longest < 64 else -1)
        data = file.getvalue()
        if len(data) <= MAX_BYTES:
            break
    return data
