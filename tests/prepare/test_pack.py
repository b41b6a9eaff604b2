"""Packs: they hold the images of the folder in the same order; a damaged pack is refused."""

import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnext.config.data import DataConfig
from resnext.data.arrays import read_arrays, write_arrays
from resnext.data.decode import decode_image
from resnext.data.image_file import MAX_BYTES
from resnext.data.images import load_images
from resnext.data.index import ImageIndex
from resnext.data.pack import PARTS
from resnext.errors import UserError
from resnext.prepare import shard_writer
from resnext.prepare.pack import prepare_pack
from support.small_run import small_config, write_images

SHARD = 4096  # bytes, about three images


def load(root: Path) -> tuple[ImageIndex, ImageIndex]:
    return load_images(DataConfig(name="image_folder", root=str(root)))


def pack(source: Path, target: Path, short_side: int | None = None):
    return prepare_pack(source, target, short_side=short_side, shard_bytes=SHARD)


def files(index: ImageIndex) -> list[bytes]:
    return [index.read(image) for image in range(len(index))]


def test_a_pack_has_the_bytes_labels_and_identity_of_its_folder(image_folder: Path, tmp_path: Path):
    shutil.copy(image_folder / "train/cat/0.png", os.fsencode(image_folder / "train/cat") + b"/\xff.png")
    assert pack(image_folder, tmp_path / "pack")[:2] == (13, 5)
    for folder, packed in zip(load(image_folder), load(tmp_path / "pack"), strict=True):
        assert files(packed) == files(folder)
        assert packed.fingerprint == folder.fingerprint
        assert packed.classes == folder.classes
        assert np.array_equal(packed.labels, folder.labels)
        assert files(pickle.loads(pickle.dumps(packed))) == files(folder)


def test_tar_can_read_a_shard(image_folder: Path, tmp_path: Path):
    pack(image_folder, tmp_path / "pack")
    images, labels = {}, {}
    paths = sorted((tmp_path / "pack").glob("train-*.tar"))
    assert [path.name for path in paths[:2]] == ["train-000000.tar", "train-000001.tar"]
    for path in paths:
        with tarfile.open(path) as shard:
            for member in shard:
                stem, _, suffix = member.name.rpartition(".")
                data = shard.extractfile(member).read()
                (images if suffix == "png" else labels)[stem] = data
    assert sorted(images) == [f"cat/{n:08d}" for n in range(6)] + [f"dog/{n:08d}" for n in range(6, 12)]
    assert labels == {stem: b"0" if stem.startswith("cat") else b"1" for stem in images}
    assert [images[stem] for stem in sorted(images)] == files(load(image_folder)[0])


def test_a_pack_with_a_short_side_is_another_data_set(image_folder: Path, tmp_path: Path):
    Image.fromarray(np.full((8, 30, 3), 200, np.uint8)).save(image_folder / "train/cat/0.png")  # already small
    pack(image_folder, tmp_path / "pack", short_side=12)
    (folder, _), (packed, _) = load(image_folder), load(tmp_path / "pack")
    assert packed.fingerprint == f"{folder.fingerprint}@12"
    assert packed.read(0) == folder.read(0)
    for image in range(1, len(packed)):
        pixels = decode_image(packed.read(image), "image")
        original = Image.open(folder.path(image)).resize((15, 12), Image.Resampling.BICUBIC)
        assert pixels.shape == (12, 15, 3)
        assert np.abs(pixels.astype(int) - np.asarray(original)).mean() < 30  # noise loses much in JPEG's 4:2:0


def test_bad_images_are_listed_and_left_out(image_folder: Path, tmp_path: Path):
    (image_folder / "train/cat/2.png").write_bytes(b"no image")
    (image_folder / "train/dog/5.png").unlink()
    (image_folder / "train/dog/5.png").symlink_to("nowhere")
    packed = pack(image_folder, tmp_path / "pack")
    assert packed[:2] == (10, 5)
    assert [line.split(" cannot")[0] for line in packed.bad] == [
        f"{image_folder}/train/cat/2.png",
        f"{image_folder}/train/dog/5.png",
    ]
    assert (tmp_path / "pack/bad.txt").read_text().splitlines() == packed.bad
    train, _ = load(tmp_path / "pack")
    assert train.labels.tolist() == [0] * 5 + [1] * 5
    assert pack(image_folder, tmp_path / "pack") == packed
    Image.new("RGB", (20, 16)).save(image_folder / "train/cat/2.png")  # a repaired image: the same command adds it
    assert pack(image_folder, tmp_path / "pack")[:2] == (11, 5)
    train, _ = load(tmp_path / "pack")
    assert train.labels.tolist() == [0] * 6 + [1] * 5
    assert train.read(2) == (image_folder / "train/cat/2.png").read_bytes()


@pytest.mark.parametrize("after", range(0, 17, 3))
def test_an_interrupted_pack_can_be_continued(
    image_folder: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
):
    (image_folder / "train/cat/1.png").write_bytes(b"no image")
    expected = pack(image_folder, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_add(patch, after)
        with pytest.raises(KeyboardInterrupt):
            pack(image_folder, tmp_path / "pack")
    with pytest.raises(
        UserError,
        match=f'incomplete pack: `make prepare ARGS="pack {image_folder} {tmp_path}/pack --shard-size {SHARD}"` cont',
    ):
        load(tmp_path / "pack")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "pack").glob("*.tar")}
    assert pack(image_folder, tmp_path / "pack") == expected
    assert before == {path: path.stat().st_mtime_ns for path in before}  # complete shards are kept
    for whole, resumed in zip(load(tmp_path / "whole"), load(tmp_path / "pack"), strict=True):
        assert files(resumed) == files(whole)
        assert resumed.fingerprint == whole.fingerprint
    assert {path.name for path in (tmp_path / "pack").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }


def interrupt_add(patch: pytest.MonkeyPatch, after: int) -> None:
    add, added = shard_writer.ShardWriter.add, []

    def interrupted(self, *arguments) -> None:
        if len(added) == after:
            raise KeyboardInterrupt
        added.append(1)
        add(self, *arguments)

    patch.setattr(shard_writer.ShardWriter, "add", interrupted)


def test_an_incomplete_shard_after_a_kill_is_written_again(image_folder: Path, tmp_path: Path):
    pack(image_folder, tmp_path / "whole")
    pack(image_folder, tmp_path / "pack")
    (tmp_path / "pack/index").unlink()
    last = sorted((tmp_path / "pack").glob("val-*.tar"))[-1]
    last.with_name(f".{last.name}.partial").write_bytes(last.read_bytes()[:700])
    last.unlink()
    pack(image_folder, tmp_path / "pack")
    assert [files(index) for index in load(tmp_path / "pack")] == [files(index) for index in load(tmp_path / "whole")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "train-000000.tar").unlink(), "train-000000.tar does not exist, but the index says"),
        (
            lambda root: os.truncate(root / "train-000001.tar", 1000),
            "train-000001.tar has 1,000 bytes, but the index says",
        ),
        (
            lambda root: os.truncate(root / "index", 100),
            "index is damaged: pack again into the same folder, or copy .*pack again",
        ),
        (lambda root: (root / "index").unlink(), "is an incomplete pack"),
    ],
)
def test_a_damaged_pack_gives_one_line(image_folder: Path, tmp_path: Path, damage, message: str):
    pack(image_folder, tmp_path / "pack")
    damage(tmp_path / "pack")
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / "pack")
    assert "\n" not in str(error.value)
    pack(image_folder, tmp_path / "pack")  # the remedy of the error message
    assert [files(index) for index in load(tmp_path / "pack")] == [files(index) for index in load(image_folder)]


def put(part: str, at: int, value: int) -> Callable[[dict, dict], None]:
    def change(header: dict, arrays: dict) -> None:
        arrays[f"train/{part}"] = arrays[f"train/{part}"].copy()
        arrays[f"train/{part}"][at] = value

    return change


def enlarge(header: dict) -> None:
    """Changes the header so that the first shard seems to have room for an image of any size."""
    header["shard_bytes"][0] = 2**40


@pytest.mark.parametrize(
    "change",
    [
        *(lambda header, arrays, key=key: header.pop(key) for key in ("classes", "shard_names", "shard_bytes")),
        *(lambda header, arrays, part=part: arrays.pop(f"val/{part}") for part in PARTS),
        *(
            lambda header, arrays, part=part: arrays.update({f"val/{part}": arrays[f"val/{part}"][:-1]})
            for part in PARTS
            if part != "paths"
        ),
        *(put(part, 0, -1) for part in ("labels", "shards", "starts", "lengths", "offsets")),
        *(put(part, 0, 2**31 - 1) for part in ("labels", "shards", "lengths")),
        *(put(part, 3, 2**62) for part in ("starts", "lengths", "offsets")),
        lambda header, arrays: header.update(shard_names=[1] * len(header["shard_names"])),
        lambda header, arrays: header.update(shard_bytes=["x"] * len(header["shard_bytes"])),
        lambda header, arrays: header.update(shard_bytes=header["shard_bytes"][:-1]),
        lambda header, arrays: (put("lengths", 0, MAX_BYTES + 1)(header, arrays), enlarge(header)),
        lambda header, arrays: header.update(classes=None),
        lambda header, arrays: header.update(classes=[None, 5]),
        lambda header, arrays: arrays.update({"train/lengths": np.ones(12)}),
    ],
)
def test_wrong_content_in_an_index_with_valid_checksums_gives_one_line(image_folder: Path, tmp_path: Path, change):
    """An edit or another program may write such an index. No image is read from outside of its shard."""
    pack(image_folder, tmp_path / "pack")
    header, arrays = read_arrays(tmp_path / "pack/index")
    change(header, arrays)
    write_arrays(tmp_path / "pack/index", header, arrays)
    with pytest.raises(UserError, match=r"pack/index is damaged: pack again into the same folder") as error:
        load(tmp_path / "pack")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"source": "x"}', "\0\0", "[" * 99_999])
def test_damaged_settings_of_a_pack_give_one_line(image_folder: Path, tmp_path: Path, content: str):
    pack(image_folder, tmp_path / "pack")
    (tmp_path / "pack/index").unlink()
    (tmp_path / "pack/pack.json").write_text(content)
    for use in (lambda: load(tmp_path / "pack"), lambda: pack(image_folder, tmp_path / "pack")):
        with pytest.raises(UserError, match=r"pack/pack.json is damaged .*: remove .* and pack again"):
            use()


def test_an_image_on_failing_storage_is_not_listed_as_bad(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    os_open = os.open

    def fail(path, *arguments, **options):
        if Path(path).match("dog/*.png"):
            raise OSError(5, "Input/output error")
        return os_open(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(
            UserError, match=r"Input/output error\): complete shards are kept, and the same command continues"
        ):
            pack(image_folder, tmp_path / "pack")
    assert pack(image_folder, tmp_path / "pack") == (12, 5, [])


def test_a_class_without_a_readable_image_is_refused(image_folder: Path, tmp_path: Path):
    for path in (image_folder / "train/dog").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"no image of .*train/dog can be read: .*bad.txt lists the reasons"):
        pack(image_folder, tmp_path / "pack")


def test_only_one_process_may_write_a_pack(image_folder: Path, tmp_path: Path):
    from resnext.files import folder_lock

    (tmp_path / "pack").mkdir()
    with folder_lock(tmp_path / "pack"), pytest.raises(UserError, match="is being written by another process"):
        pack(image_folder, tmp_path / "pack")


def test_a_pack_may_have_more_shards_than_the_limit_of_open_files(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pack(image_folder, tmp_path / "pack")
    monkeypatch.setattr("resnext.data.pack.MAX_OPEN", 2)
    train, _ = load(tmp_path / "pack")
    assert files(train) * 2 == files(load(image_folder)[0]) * 2
    assert len(train._files) == 2


def test_a_shard_that_shrinks_during_the_training_is_an_error(image_folder: Path, tmp_path: Path):
    pack(image_folder, tmp_path / "pack")
    train, _ = load(tmp_path / "pack")
    os.truncate(tmp_path / "pack/train-000000.tar", 600)
    with pytest.raises(
        UserError, match=r"train-000000.tar: cat/0.png cannot be read .*the shard ends before the image does"
    ):
        train.read(0)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda source, target: pack(source, target, short_side=8), "was started with other options, by `make prepare"),
        (
            lambda source, target: write_images(source, {"train/cat/more": 1}),
            "the images of .* have changed since .*pack was started",
        ),
        (lambda source, target: shutil.copytree(target, source, dirs_exist_ok=True), "is a pack already"),
    ],
)
def test_a_pack_begun_with_other_options_or_images_is_refused(
    image_folder: Path, tmp_path: Path, prepare, message: str
):
    pack(image_folder, tmp_path / "pack")
    with pytest.raises(UserError, match=message):
        prepare(image_folder, tmp_path / "pack")
        pack(image_folder, tmp_path / "pack")


def test_a_target_with_other_files_is_not_changed(image_folder: Path, tmp_path: Path):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other files: give a new or empty folder"):
        pack(image_folder, tmp_path / "pack")


def test_a_full_disk_keeps_complete_shards(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    add = shard_writer.ShardWriter.add

    def full(self, image, *arguments) -> None:
        if image == 5:
            raise OSError(28, "No space left on device")
        add(self, image, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer.ShardWriter, "add", full)
        with pytest.raises(UserError, match="cannot be written: No space left on device; complete shards are kept"):
            pack(image_folder, tmp_path / "pack")
    assert not list((tmp_path / "pack").glob(".*"))
    assert pack(image_folder, tmp_path / "pack")[:2] == (12, 5)


def test_batches_from_a_pack_equal_those_from_its_folder(image_folder: Path, tmp_path: Path):
    """Compares order and pixels of a whole epoch, bit for bit."""
    import torch

    from resnext.data.augment import build_train_transforms
    from resnext.data.dataset import TrainImages
    from resnext.data.sampler import RankBatches

    pack(image_folder, tmp_path / "pack")
    config = small_config(image_folder)
    transforms = build_train_transforms(config.recipe, config.data)
    epochs = []
    for root in (image_folder, tmp_path / "pack"):
        images = TrainImages(load(root)[0], None, config.recipe, config.data, transforms, 3)
        epochs.append([images[sample] for batch in RankBatches(3, 12, 4, 0, 1, 1) for sample in batch])
    for folder, packed in zip(*epochs, strict=True):
        assert torch.equal(folder[0], packed[0])
        assert folder[1:] == packed[1:]
