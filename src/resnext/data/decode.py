"""Bytes of an image file → RGB pixels. EXIF orientation is ignored, as ImageNet does.

simplejpeg decodes JPEG in nine tenths of Pillow's time, to the same pixels; Pillow decodes the rest. simplejpeg also
refuses entropy-coded data that libjpeg had to guess, which Pillow passes over in silence (20 % of single flipped bits;
most of the others leave a valid file, which nothing can tell from a good one).
"""

import errno
import warnings
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from resnext.errors import UserError
from resnext.runtime.library_messages import count_extraneous_bytes, is_jpeg_damage

MAX_PIXELS = 2**27  # 134 megapixels, or 400 MB in RGB: a larger file is taken for a decompression bomb
JPEG_START = b"\xff\xd8"


class UnreadableImage(UserError):
    """An image file that cannot be read or decoded.

    Attributes:
        name, reason: of the file; why.
        is_damaged: whether the file is at fault, or missing; not the storage it is on, which may be well again.
    """

    def __init__(self, name: str, reason: str, *, is_damaged: bool = True) -> None:
        super().__init__(name, reason)  # pickle gives these two back to the constructor
        self.name, self.reason, self.is_damaged = name, reason, is_damaged

    def __str__(self) -> str:
        return f"{self.name} cannot be read as an image ({self.reason}): replace it, or begin a run without it"


def decode_image(data: bytes, name: str) -> np.ndarray:
    """The whole image as uint8 [height, width, 3]; grey and CMYK are converted, an alpha channel is dropped.

    Args:
        data: the file's content, of any format that Pillow reads, whatever the file is called.
        name: of the file, for the error.

    Raises:
        UnreadableImage: if it is damaged, truncated, not an image, or too large.
    """
    try:
        pixels = _decode_jpeg(data) if data.startswith(JPEG_START) else None
        return _decode_with_pillow(data) if pixels is None else pixels
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise unreadable(name, ValueError("no format that Pillow knows")) from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, DecompressionBombError …
        raise unreadable(name, error) from error


def unreadable(name: str, error: Exception) -> UnreadableImage:
    number, strerror = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
    reason = strerror or " ".join(str(error).split()) or type(error).__name__
    return UnreadableImage(name, reason, is_damaged=number in (None, errno.ENOENT, errno.ELOOP))


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """None for what Pillow has to decode: CMYK, rare codings, and junk between the headers, which harms no pixel."""
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
    """Whether all that is wrong are equal bytes before the end marker, which no entropy-coded data leaves."""
    extraneous = count_extraneous_bytes(warning)
    if extraneous is None:
        return False
    end = data.rfind(b"\xff\xd9")
    return len(set(data[max(0, end - extraneous) : end])) == 1


def _decode_with_pillow(data: bytes) -> np.ndarray:
    # of odd metadata, and of bombs that are refused here; for good, as catch_warnings is not made for threads
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with Image.open(BytesIO(data)) as image:
        _check_size(image.width, image.height)
        if image.mode.startswith("I;16"):
            levels = np.asarray(image)  # 16 bits, of which Pillow's own conversion would cut off the upper 8
            return np.repeat((levels >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
        if image.mode in ("I", "F"):
            raise ValueError(f"mode {image.mode} says not which level is white: convert it to 8 bits")
        return np.array(image.convert("RGB"))


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} pixels are more than {MAX_PIXELS} in all")
