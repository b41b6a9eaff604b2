"""The old keys model.layers … model.stem still work; they are now options of a ResNeXt."""

import itertools
import shutil
from pathlib import Path

import pytest

from resnext.config import compose as composition
from resnext.config.compose import apply_overrides, compose
from resnext.config.model import ModelConfig
from resnext.run.identity import describe_differences, identity_digest
from resnext.run.run_files import read_config, read_yaml

FIXTURE = Path(__file__).parents[1] / "fixtures/old_run"
SMALL = {"layers": [1, 1], "cardinality": 2, "base_width": 16, "width": 8, "stem": "cifar"}


def test_old_keys_work_on_the_command_line(tmp_path: Path):
    old = compose(["model=resnext_small", "model.layers=[2,1]", "++model.width=64", "model.stem=imagenet"])
    new = compose(
        ["model=resnext_small", "model.options.layers=[2,1]", "model.options.width=64", "model.options.stem=imagenet"]
    )
    assert old == new
    assert (new.model.options.layers, new.model.options.width, new.model.options.cardinality) == ((2, 1), 64, 8)
    assert apply_overrides(new, ["model.width=128"]).model.options.width == 128


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(composition.CONFIGS, tmp_path / "configs")
    monkeypatch.setattr(composition, "CONFIGS", tmp_path / "configs")
    return tmp_path / "configs"


def test_old_keys_work_in_a_users_files_and_the_later_file_applies(configs: Path):
    (configs / "model/old.yaml").write_text("name: resnext\nlayers: [1]\ncardinality: 4\nbase_width: 16\nwidth: 32\n")
    (configs / "model/new.yaml").write_text(
        "name: resnext\noptions: {layers: [1], cardinality: 4, base_width: 16, width: 32}\n"
    )
    header = "# @package _global_\ndefaults:\n  - override /data: digits\n  - override /recipe: small\n"
    experiments = {"old": "width: 64", "new": "options: {width: 64}"}
    for name, text in experiments.items():
        (configs / f"experiment/{name}.yaml").write_text(f"{header}model: {{{text}}}\n")
    with composition.composer() as compose_one:
        for experiment, model in itertools.product(experiments, ("old", "new")):
            given = [f"experiment={experiment}", f"model={model}"]
            assert compose_one(given).model.options.width == 64
            assert compose_one([*given, "model.width=128"]).model.options.width == 128
            assert compose_one([*given, "model.options.width=128"]).model.options.width == 128


def test_old_keys_work_in_python():
    assert ModelConfig(name="resnext", **SMALL | {"layers": (1, 1)}) == ModelConfig(  # pyright: ignore
        name="resnext", options=SMALL
    )


def test_old_keys_work_in_the_run_of_an_earlier_release():
    """The identity of the run is computed from config.yaml as it was written."""
    made = read_config(FIXTURE / "config.yaml")
    assert made.model.options.width == 8
    today = apply_overrides(made, [])
    assert describe_differences(made, today) == ""
    wider = apply_overrides(made, ["model.width=16"])
    assert describe_differences(made, wider) == "model.options.width was 8 and is now 16"
    content = read_yaml(FIXTURE / "config.yaml")
    assert identity_digest(content, {}) == identity_digest({**content, "callbacks": {"names": [], "options": {}}}, {})
    assert identity_digest(content, {}) != identity_digest({**content, "callbacks": {"names": ["x"]}}, {})
