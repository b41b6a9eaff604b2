"""CIFAR as an image folder, compared with torchvision's own reader, for small artificial batches."""

import functools
import hashlib
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from resnext.errors import UserError
from resnext.prepare.cifar import prepare_cifar

CLASSES = [f"class {number}" for number in range(3)]
IMAGES = 6


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[np.ndarray]:
    """Serves an archive of two training batches and a test batch; returns all pixels [18, 32, 32, 3]."""
    pixels = np.random.default_rng(0).integers(0, 256, (3 * IMAGES, 3, 32, 32), dtype=np.uint8)
    folder = tmp_path / "made/cifar-10-batches-py"
    folder.mkdir(parents=True)
    md5 = {}
    for number, name in enumerate(("data_batch_1", "data_batch_2", "test_batch")):
        part = pixels[number * IMAGES : (number + 1) * IMAGES].reshape(IMAGES, -1)
        (folder / name).write_bytes(pickle.dumps({"data": part, "labels": [n % 3 for n in range(IMAGES)]}))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES}))
    archive = tmp_path / "made/cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    kind = datasets.CIFAR10
    handler = functools.partial(SimpleHTTPRequestHandler, directory=archive.parent)
    server = ThreadingHTTPServer(("localhost", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(kind, "url", f"http://localhost:{server.server_port}/{archive.name}")
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(kind, "train_list", [[name, md5[name]] for name in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5["test_batch"]]])
    meta = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": meta})
    yield pixels.transpose(0, 2, 3, 1)
    server.shutdown()
    server.server_close()


def test_every_image_appears_once_with_its_label(made_up: np.ndarray, tmp_path: Path):
    assert prepare_cifar("cifar10", tmp_path / "cifar10") == (12, 6)
    found = {(path.parts[-3], path.stem): path for path in (tmp_path / "cifar10").glob("*/*/*.png")}
    assert len(found) == 18
    for (split, number), path in found.items():
        expected = made_up[int(number) + (0 if split == "train" else 12)]
        assert np.array_equal(np.asarray(Image.open(path)), expected)
        assert path.parent.name == CLASSES[int(number) % IMAGES % 3]
    assert sorted(path.name for path in (tmp_path / "cifar10").iterdir()) == ["train", "val"]
    assert not (tmp_path / "cifar10.part").exists()


def test_an_existing_folder_is_not_changed(tmp_path: Path):
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(UserError, match="cifar10 exists already: remove it"):
        prepare_cifar("cifar10", tmp_path / "cifar10")


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.CIFAR100, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    with pytest.raises(
        UserError, match=r"cifar100 cannot be downloaded .*put cifar-100-python.tar.gz .* and run the command again"
    ):
        prepare_cifar("cifar100", tmp_path / "cifar100")
    assert not (tmp_path / "cifar100").exists()
