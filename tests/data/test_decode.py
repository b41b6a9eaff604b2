"""Decoding of image files of all kinds, valid and broken, compared with Pillow."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnext.data import decode
from resnext.data.decode import decode_image
from resnext.errors import UserError

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
PIXELS = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)[:, :, None] + np.array([0, 50, 100], np.uint8)
PHOTO = Image.fromarray(PIXELS).resize((157, 101), Image.Resampling.BICUBIC)  # odd sides: partial blocks at the edges


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_the_content_decides_the_format(kind: str):
    """The file's name does not matter: ImageNet has a PNG whose name ends with .JPEG."""
    data = encode(PHOTO, kind)
    assert np.array_equal(decode_image(data, "image.JPEG"), by_pillow(data))


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2"},
        {"subsampling": "4:2:0"},
        {"subsampling": "4:1:1"},
        {"quality": 30},
        {"progressive": True},
        {"optimize": True},
        {"restart_marker_rows": 1},
        {"keep_rgb": True},
    ],
)
@pytest.mark.parametrize("image", [PHOTO, NOISE])
def test_jpegs_decode_to_pillows_pixels_bit_for_bit(image: Image.Image, options: dict):
    data = encode(image, "JPEG", **options)
    assert np.array_equal(decode_image(data, "image"), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(mode: str):
    data = encode(PHOTO.convert(mode), "JPEG")
    assert np.array_equal(decode_image(data, "image"), by_pillow(data))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_other_colour_spaces_become_rgb(mode: str):
    source = Image.fromarray(PIXELS).convert("L") if mode == "I;16" else Image.fromarray(PIXELS)
    image = source.convert("I").convert("I;16") if mode == "I;16" else source.convert(mode)
    pixels = decode_image(encode(image, "TIFF"), "image")
    if mode == "I;16":
        assert np.array_equal(pixels, np.zeros((40, 60, 3)))  # its levels are at most 255 of 65,535
    else:
        assert np.array_equal(pixels, by_pillow(encode(image, "TIFF")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(kind: str):
    """Pillow's own conversion turns every level above 255 into white."""
    ramp = np.linspace(0, 65535, 600, dtype=np.uint16).reshape(20, 30)
    pixels = decode_image(encode(Image.fromarray(ramp), kind), "image")
    assert np.array_equal(pixels, np.repeat((ramp >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixel_types_without_a_fixed_range_are_refused(dtype: type):
    data = encode(Image.fromarray(np.ones((4, 4), dtype)), "TIFF")
    with pytest.raises(UserError, match="does not define which level is white: convert it to 8 bits"):
        decode_image(data, "image")


@pytest.mark.parametrize("padding", [b"\x00" * 7, b"\xff" * 3, b"\x00"])
def test_padding_before_the_end_marker_changes_no_pixel(padding: bytes):
    data = encode(PHOTO, "JPEG")
    assert np.array_equal(decode_image(data[:-2] + padding + data[-2:], "image"), by_pillow(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_ignored(kind: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert decode_image(encode(Image.fromarray(PIXELS), kind, exif=exif), "image").shape == (40, 60, 3)


def test_extra_bytes_between_the_headers_change_no_pixel():
    data = encode(PHOTO, "JPEG")
    tables = data.index(b"\xff\xdb")
    junk = data[:tables] + b"\x00junk" + data[tables:]
    assert np.array_equal(decode_image(junk, "image"), by_pillow(data))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a format that Pillow does not know"),
        (b"hello", "a format that Pillow does not know"),
        (b"\xff\xd8", "a format that Pillow does not know"),
        (encode(NOISE, "JPEG")[:1500], "Premature end of JPEG file"),
        (encode(NOISE, "JPEG")[:300], "[Tt]runcated"),
        (encode(NOISE, "JPEG", progressive=True)[:-300], "Premature end of JPEG file"),
        (encode(NOISE, "PNG")[:3000], "truncated"),
        (encode(NOISE, "PNG")[:2000] + b"\x00" + encode(NOISE, "PNG")[2001:], "broken|bad|checksum|CRC"),
    ],
)
def test_one_line_names_a_broken_file(content: bytes, reason: str):
    with pytest.raises(
        UserError, match=rf"^cat/broken.jpg .*({reason}).*: replace it, or start a new run without it$"
    ) as error:
        decode_image(content, "cat/broken.jpg")
    assert "\n" not in str(error.value)


def test_flipped_bits_that_libjpeg_detects_are_errors():
    """For nine of ten such files, Pillow returns wrong pixels without a warning."""
    data = encode(NOISE, "JPEG", quality=95)
    start = data.index(b"\xff\xda") + 20
    refused = passed_by_pillow = 0
    for bit in range(8 * start, 8 * len(data), 97):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            decode_image(bytes(flipped), "image")
        except UserError:
            refused += 1
            passed_by_pillow += decodes(bytes(flipped))
    assert refused > 30
    assert passed_by_pillow > refused / 2


def decodes(data: bytes) -> bool:
    try:
        by_pillow(data)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match=r"bomb cannot be read .*60×40 pixels are more than the limit of 1000"):
        decode_image(encode(Image.fromarray(PIXELS), kind), "bomb")
