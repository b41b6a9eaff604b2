"""`--config-dir`: a user's own configuration files, outside the project."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import yaml

from resnext.__main__ import run_verb
from resnext.config import compose as composition
from resnext.config import config_file
from resnext.config.compose import composer, run_with_hydra
from resnext.config.schema import Config
from resnext.errors import UserError

FILES = {
    "experiment/mine.yaml": "# @package _global_\n"
    "defaults: [override /model: tiny, override /data: few, override /recipe: quick, override /trainer: one, "
    "override /logger: quiet, override /slurm: ours]\nseed: 7\n",
    "model/tiny.yaml": "{name: resnext, layers: [1], cardinality: 2, base_width: 32, stem: cifar}\n",
    "data/few.yaml": "{name: digits, root: elsewhere, num_classes: 10}\n",
    "recipe/quick.yaml": "defaults: [small, _self_]\npublished: by nobody\nepochs: 3\n",
    "trainer/one.yaml": "devices: 1\n",
    "logger/quiet.yaml": "mode: disabled\n",
    "slurm/ours.yaml": "defaults: [cpu, _self_]\nprologue: [module load ours]\n",
}
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file in each group and a space in its name; the project has only three recipes."""
    ours = shutil.copytree(composition.CONFIGS, tmp_path / "project/configs")
    for path in (ours / "recipe").glob("*"):
        if path.stem not in ("cifar_paper", "small", "v1"):
            path.unlink()
    monkeypatch.setattr(composition, "CONFIGS", ours)
    for name, text in FILES.items():
        path = tmp_path / "my configs" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path / "my configs"


def compose(*arguments: str) -> list[Config]:
    configs: list[Config] = []
    run_with_hydra("train", list(arguments), configs.append)
    return configs


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        compose(*arguments)
    return str(error.value)


@pytest.mark.parametrize("given", ["--config-dir=my configs", "-cd=./my configs/", "--config-dir={folder}"])
def test_each_group_of_the_folder_can_be_chosen(folder: Path, given: str, capsys: pytest.CaptureFixture[str]):
    (config,) = compose(given.format(folder=folder), "experiment=mine", "recipe.batch_size=32")
    assert (config.experiment, config.seed, config.data.name) == ("mine", 7, "digits")
    assert config.model.options.layers == (1,)
    assert (config.recipe.epochs, config.recipe.image_size, config.recipe.batch_size) == (3, 8, 32)  # 8: from small
    assert (config.trainer.devices, config.logger.mode) == (1, "disabled")
    assert config.slurm.prologue == ("module load ours",)
    assert capsys.readouterr().err == ""


def test_the_flag_may_come_before_or_after_the_overrides_and_home_is_expanded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert compose("experiment=mine", "--config-dir", "~/my configs") == compose("-cd", str(folder), "experiment=mine")
    assert compose("-cd", str(composition.CONFIGS)) == compose()


def test_cfg_and_multirun_use_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["train", "--config-dir", str(folder), "experiment=mine", "--cfg", "job"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["recipe"]["published"] == "by nobody"
    jobs = compose("-m", "--config-dir", str(folder), "experiment=mine", "recipe=quick,small", "run=s")
    assert [(job.run, job.recipe.epochs) for job in jobs] == [("s-0", 3), ("s-1", 30)]


def test_a_job_elsewhere_composes_from_the_same_folder(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Like a job of submitit: with the pickled loader, in another folder."""
    with composer("my configs") as compose_one:
        loader = pickle.dumps(compose_one.hydra.config_loader)
        expected = compose_one(["experiment=mine"])
        (folder / "there").mkdir()
        monkeypatch.chdir(folder / "there")
        composed = pickle.loads(loader).load_configuration("train", ["experiment=mine"], composition.RunMode.RUN)
    assert composed.recipe.epochs == expected.recipe.epochs == 3


def test_the_job_script_of_slurm_uses_the_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], digits: Path
):
    arguments = ["experiment=mine", "run=one", f"data.root={digits}", "slurm.tasks_per_node=1", "slurm.dry_run=true"]
    assert run_verb(["slurm", "--config-dir", "my configs", *arguments]) == 0
    assert "module load ours" in capsys.readouterr().out
    assert yaml.safe_load((tmp_path / "runs/one/config.yaml").read_text())["experiment"] == "mine"


def test_a_project_file_wins_over_a_file_of_the_same_name_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    """Only a command that reads the file warns, also one that reads it through another file, and once."""
    (folder / "recipe/v1.yaml").write_text("epochs: 1\n")
    (folder / "recipe/like_v1.yaml").write_text("defaults: [v1]\n")
    line = f"resnext: {folder}/recipe/v1.yaml is ignored: configs/ has a file of the same name; rename it\n"
    for chosen in (["recipe=v1"], ["recipe=like_v1"], ["-m", "run=s", "seed=1,2", "recipe=v1"]):
        config_file._warn_of_ignored.cache_clear()
        configs = compose("--config-dir", "my configs", "experiment=mine", *chosen)
        assert {config.recipe.epochs for config in configs} == {100}
        assert capsys.readouterr().err == line
    compose("--config-dir", "my configs", "experiment=mine")
    assert capsys.readouterr().err == ""
    (folder / "train.yaml").write_text("seed: 9\n")
    assert compose("--config-dir", "my configs")[0].seed == 0
    assert f"{folder}/train.yaml is ignored" in capsys.readouterr().err


def test_a_folder_at_the_wrong_level_is_refused_with_the_right_one(folder: Path):
    (folder.parent / "empty").mkdir()
    none = "holds none of data/, experiment/, logger/, model/, recipe/, slurm/, sweep/, trainer/: give"
    assert refusal("--config-dir=my configs/recipe") == f"--config-dir=my configs/recipe {none} {folder}, which does"
    assert refusal(f"--config-dir={folder.parent}") == f"--config-dir={folder.parent} {none} {folder}, which does"
    assert refusal("--config-dir=empty") == f"--config-dir=empty {none} a folder that does"


def test_a_forgotten_folder_is_mentioned_unless_a_name_is_near(folder: Path):
    hint = "; to use {}.yaml in a folder of your own, add --config-dir FOLDER"
    assert refusal("experiment=mine").endswith(hint.format("experiment/mine"))
    assert refusal("recipe=quick").endswith(hint.format("recipe/quick"))
    assert refusal("experiment=finetuned").endswith("; did you mean finetune?")
    assert refusal("-cd", "my configs", "recipe=zzz").endswith("recipe is one of cifar_paper, quick, small, v1")


def test_messages_include_the_names_of_the_folder(folder: Path):
    line = refusal("--config-dir", "my configs", "experiment=mime")
    assert line.startswith("experiment=mime does not exist; experiment is one of finetune, image_folder, mine, ")
    assert line.endswith("; did you mean mine?")
    assert refusal("-cd", "my configs", "slurm=our").endswith("slurm is one of cpu, default, ours; did you mean ours?")
    (folder / "experiment/other.yaml").write_text("# @package _global_\ndefaults: [override /data: cifar100]\n")
    assert "give experiment=other, or both model" in refusal("-cd", "my configs", "data=cifar100")


def test_recipes_of_the_folder_are_listed_described_and_compared(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["recipes"]) == 0
    ours = capsys.readouterr().out
    assert run_verb(["recipes", "--config-dir", "my configs"]) == 0
    listed = capsys.readouterr().out
    start, end = listed.index("\nquick "), listed.index("\nsmall ")
    assert listed[:start] + listed[end:] == ours
    assert listed[start:end].endswith("published: by nobody")
    assert run_verb(["recipes", "quick", "--config-dir", "my configs", "--images", "640"]) == 0
    assert "steps     30 = 3 epochs × 10" in capsys.readouterr().out
    assert run_verb(["recipes", "--diff", "small", "quick", "--config-dir=my configs"]) == 0
    assert capsys.readouterr().out.split() == ["recipe.", "small", "quick", "epochs", "30", "3"]
    assert run_verb(["recipes", "quick"]) == 2
    assert capsys.readouterr().err.startswith(
        "resnext recipes: quick is not a recipe; the recipes are cifar_paper, small, v1"
    )


def test_completion_uses_the_folder_of_the_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(folder, "own")
    Path("own/recipe/v1.yaml").write_text("ignored: without a warning here")
    expected = {
        "--config-dir own experiment=mi": ["experiment=mine"],
        "--config-dir=./own recipe=qu": ["recipe=quick"],
        "-cd ~/own experiment=mine recipe.epo": ["recipe.epochs="],
        "--config-dir nowhere experiment=mi": [],
        "--config-dir ": [],  # the shell completes the folder
    }
    monkeypatch.setenv("HOME", str(folder.parent))
    for words, names in expected.items():
        monkeypatch.setenv("COMP_LINE", f"resnext train {words}")
        assert run_verb(["-sc", "query=bash"]) == 0
        assert capsys.readouterr() == (
            f"{' '.join(names)}\n".lstrip() if words.endswith(" ") else f"{' '.join(names)}\n",
            "",
        )


@pytest.mark.parametrize("verb", ["train", "slurm", "recipes"])
def test_a_folder_that_does_not_exist_or_is_a_file_is_refused(
    verb: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    for given, problem in {
        "nowhere": "--config-dir=nowhere does not exist: give a folder that holds",
        "my configs/recipe/quick.yaml": "--config-dir=my configs/recipe/quick.yaml is not a folder: give",
        "": "--config-dir= does not exist",
    }.items():
        assert run_verb([verb, f"--config-dir={given}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"resnext {verb}: {problem}")


@pytest.mark.parametrize("text", [b"epochs: [1\n", b"# \xe9\n", b"3\n"])
def test_a_broken_file_is_named(folder: Path, text: bytes, capsys: pytest.CaptureFixture[str]):
    (folder / "recipe/broken.yaml").write_bytes(text)
    assert f"{folder}/recipe/broken.yaml" in refusal("--config-dir", "my configs", "recipe=broken")
    assert run_verb(["recipes", "--config-dir", "my configs"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder}/recipe/broken.yaml" in line


def test_a_mistake_in_a_recipe_names_its_file(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "recipe/wrong.yaml").write_text("defaults: [small]\nepoch: 3\n")
    assert run_verb(["recipes", "wrong", "--config-dir", "my configs"]) == 2
    expected = f"{folder}/recipe/wrong.yaml: recipe.epoch is not a configuration key; did you mean recipe.epochs?"
    assert capsys.readouterr().err == f"resnext recipes: {expected}\n"


HARM = {
    "hydra.callbacks": (
        "experiment/evil.yaml",
        "hydra: {callbacks: {x: {_target_: pathlib.Path.touch, self: canary}}}",
    ),
    "hydra.run": ("experiment/evil.yaml", "hydra: {run: {dir: elsewhere}}"),
    "hydra.job_logging": ("hydra/job_logging/evil.yaml", "{version: 1, root: {level: INFO}}"),
    "hydra.launcher": (
        "hydra/launcher/submitit_slurm.yaml",
        f"{{_target_: {SUBMITIT}.SlurmLauncher, setup: [touch x]}}",
    ),
    "slurm.prologue": ("experiment/evil.yaml", "slurm: {prologue: [touch canary]}"),
    "seed": ("experiment/evil.yaml", "seed: ${oc.env:WANDB_API_KEY}"),
}


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/submitit_slurm' is validated:UserWarning")
@pytest.mark.parametrize("key", HARM)
def test_settings_that_are_refused_in_configs_are_refused_in_the_folder(folder: Path, key: str):
    name, text = HARM[key]
    group, _, stem = name.removesuffix(".yaml").rpartition("/")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{text}\n")
    chosen = f"defaults: [override /{group}: {stem}]\n" if group != "experiment" else ""
    (folder / "experiment/evil.yaml").write_text(f"# @package _global_\n{chosen or text}\n")
    before = set(Path().rglob("*"))
    assert refusal("--config-dir", "my configs", "experiment=evil").startswith(key)
    assert set(Path().rglob("*")) == before
    assert "canary" not in os.listdir()
