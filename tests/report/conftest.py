"""A trained and evaluated run whose classes have names of HTML, and its report."""

import pytest

from resnext.run.directory import Run
from support.evaluation import evaluated
from support.small_run import make_run, small_config, write_images

CLASSES = ('<img src=x onerror="alert(1)">', "</section><script>", "a & $b^2$", "naïve\x1b漢字")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three epochs of three steps, with an EMA; do not change it."""
    from resnext.training.fit import fit

    folder = tmp_path_factory.mktemp("reported")
    names = [each.replace("/", "\u2215") for each in CLASSES]
    write_images(folder / "images", {f"{split}/{name}": 9 for split in ("train", "val") for name in names})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        recipe = {"recipe__epochs": 3, "recipe__batch_size": 12, "recipe__ema": {"decay": 0.5}}
        config = small_config(folder / "images", experiment="image_folder", **recipe)
        run = make_run(config)
        fit(run)
        evaluated(run)
        return Run(run.path.absolute())


@pytest.fixture(scope="session")
def page(reported: Run) -> str:
    """Its report. No section is left out."""
    from resnext.report.page import build_page

    found = build_page([reported])
    assert found.left_out == {}
    return found.text
