"""A trained run, which the tests of this folder share."""

from pathlib import Path

import pytest

from support.small_run import RESNET, make_run, small_config, write_images


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/test with three classes and images of 32 pixels, an average of the weights, and its images/."""
    from resnext.training.fit import fit

    folder = tmp_path_factory.mktemp("trained")
    classes = ("cat", "dog", "éléphant")
    write_images(folder / "images", {f"{split}/{name}": 8 for name in classes for split in ("train", "val")})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        changes = {"model": RESNET, "recipe__image_size": 32, "recipe__ema": {"decay": 0.9}}
        fit(make_run(small_config(folder / "images", recipe__batch_size=8, **changes)))
    return folder / "runs/test"
