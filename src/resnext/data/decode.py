"""Image files → RGB pixels. EXIF orientation is ignored, as ImageNet does."""

import warnings
from pathlib import Path

from PIL import Image

from resnext.errors import UserError

MAX_PIXELS = 2**27  # 134 megapixels, or 400 MB in RGB: a larger file is taken for a decompression bomb


def decode_image(path: Path) -> Image.Image:
    """The whole image as RGB; grey and CMYK are converted, an alpha channel is dropped.

    Raises:
        UserError: if the file is missing, unreadable, damaged, truncated, no image, or too large; it names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and of bombs that are refused below
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(
                        f"{path} has {image.width}×{image.height} pixels, more than {MAX_PIXELS} in all: resize it"
                    )
                return image.convert("RGB")
    except UserError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, DecompressionBombError …
        reason = " ".join(str(error).replace(f"'{path}'", "").split()) or type(error).__name__
        raise UserError(f"{path} cannot be read as an image ({reason}): replace or remove it") from error
