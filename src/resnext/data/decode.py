"""Bytes of an image file → RGB pixels. EXIF orientation is ignored, as is usual for ImageNet.

simplejpeg decodes JPEG to the same pixels as Pillow, in 90 % of the time. Pillow decodes all other formats. Where
entropy-coded data is damaged, libjpeg guesses the pixels: simplejpeg then refuses the file, but Pillow reports nothing.
This finds 20 % of single flipped bits. With most of the other flipped bits, the file is still a valid JPEG.
"""

import errno
import warnings
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from resnext.errors import UserError
from resnext.runtime.library_messages import count_extraneous_bytes, is_jpeg_damage

MAX_PIXELS = 2**27  # 134 megapixels, or 400 MB in RGB: a larger image is treated as a decompression bomb
JPEG_START = b"\xff\xd8"


class UnreadableImage(UserError):
    """An image file that cannot be read or decoded.

    Attributes:
        name: the file.
        reason: why it cannot be read.
        is_damaged: whether the file itself is damaged or missing. False for an error of the storage, which may be
            temporary.
    """

    def __init__(self, name: str, reason: str, *, is_damaged: bool = True) -> None:
        super().__init__(name, reason)  # pickle calls the constructor with these two arguments
        self.name, self.reason, self.is_damaged = name, reason, is_damaged

    def __str__(self) -> str:
        return f"{self.name} cannot be read as an image ({self.reason}): replace it, or start a new run without it"


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The whole image as uint8 [height, width, 3]; grey and CMYK are converted, an alpha channel is dropped.

    Args:
        data: the file's content, of any format that Pillow reads; the file's name does not matter.
        name: the file's name, for the error.

    Raises:
        UnreadableImage: if the content is damaged, truncated, not an image, or too large.
    """
    try:
        pixels = _decode_jpeg(data) if data.startswith(JPEG_START) else None
        return _decode_with_pillow(data) if pixels is None else pixels
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise unreadable(name, ValueError("a format that Pillow does not know")) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, DecompressionBombError …
        raise unreadable(name, error) from error


def unreadable(name: str, error: Exception) -> UnreadableImage:
    number, strerror = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
    reason = strerror or " ".join(str(error).split()) or type(error).__name__
    return UnreadableImage(name, reason, is_damaged=number in (None, errno.ENOENT, errno.ELOOP))


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """None if Pillow must decode it: CMYK, a rare coding, or extra bytes between the headers, which change no pixel."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(int(width), int(height))
    if colorspace in ("CMYK", "YCCK"):
        return None
    try:
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False)
    except ValueError as error:
        if is_jpeg_damage(str(error)) and not _is_padded(data, str(error)):
            raise
        return None


def _is_padded(data: bytes, warning: str) -> bool:
    """Whether the skipped bytes before the end marker are padding: all equal, unlike the rest of an image's data."""
    extraneous = count_extraneous_bytes(warning)
    if extraneous is None:
        return False
    end = data.rfind(b"\xff\xd9")
    return len(set(data[max(0, end - extraneous) : end])) == 1


def _decode_with_pillow(data: bytes) -> np.ndarray:
    # Pillow warns about odd metadata and decompression bombs (_check_size refuses them). The filter is permanent,
    # because catch_warnings is not thread-safe.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with Image.open(BytesIO(data)) as image:
        _check_size(image.width, image.height)
        return to_rgb(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """uint8 [height, width, 3]. Raises ValueError for a mode that does not define which level is white."""
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)  # 16 bits; Pillow's own conversion would cut off the upper 8
        return np.repeat((levels >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} does not define which level is white: convert it to 8 bits")
    return np.array(image.convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} pixels are more than the limit of {MAX_PIXELS}")
