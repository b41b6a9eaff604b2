"""Image files of every kind, and broken ones."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnext.data import decode
from resnext.data.decode import decode_image
from resnext.errors import UserError

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
PIXELS = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)[:, :, None] + np.array([0, 50, 100], np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"])
def test_formats_by_content_not_by_name(tmp_path: Path, kind: str):
    (tmp_path / "image.JPEG").write_bytes(encode(Image.fromarray(PIXELS), kind))
    image = decode_image(tmp_path / "image.JPEG")
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - PIXELS).mean() < 3


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_other_colour_spaces_become_rgb(tmp_path: Path, mode: str):
    source = Image.fromarray(PIXELS).convert("L") if mode == "I;16" else Image.fromarray(PIXELS)
    image = source.convert("I").convert("I;16") if mode == "I;16" else source.convert(mode)
    (tmp_path / "image").write_bytes(encode(image, "TIFF"))
    assert decode_image(tmp_path / "image").mode == "RGB"


def test_exif_orientation_is_ignored(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    (tmp_path / "image.jpg").write_bytes(encode(Image.fromarray(PIXELS), "JPEG", exif=exif))
    assert decode_image(tmp_path / "image.jpg").size == (60, 40)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot identify image file"),
        (b"hello", "cannot identify image file"),
        (encode(NOISE, "JPEG")[:1500], "truncated"),
        (encode(NOISE, "JPEG")[:300], "(?i)truncated"),
        (encode(NOISE, "PNG")[:3000], "truncated"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"{reason}.*: replace or remove it") as error:
        decode_image(tmp_path / "broken.jpg")
    assert "\n" not in str(error.value)


def test_missing_files_and_dangling_links_are_named(tmp_path: Path):
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(UserError, match=r"link.jpg cannot be read as an image \(.*No such file"):
        decode_image(tmp_path / "link.jpg")


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1000)
    (tmp_path / "bomb.png").write_bytes(encode(Image.fromarray(PIXELS), "PNG"))
    with pytest.raises(UserError, match=r"bomb.png has 60×40 pixels"):
        decode_image(tmp_path / "bomb.png")
