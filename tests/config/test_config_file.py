"""A mistake in a file of the user's own is one line with the name of the file and the line to write."""

import re
from pathlib import Path

import pytest

from resnext.config.compose import CONFIGS, run_with_hydra
from resnext.config.schema import Config
from resnext.errors import UserError

PAGE = (CONFIGS.parent / "docs/configuration.md").read_text()
HEADER = "# @package _global_\n"
CHOICES = "defaults: [override /model: resnext_small, override /data: digits, override /recipe: small]\n"


def compose(*arguments: str) -> Config:
    configs: list[Config] = []
    run_with_hydra("train", ["--config-dir=own", *arguments], configs.append)
    return configs[0]


def write(name: str, text: str) -> Path:
    path = Path("own", f"{name}.yaml").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        compose(*arguments)
    return str(error.value)


LIST = ": its defaults list has `- {}`; write `- {}`"
FORGOTTEN = {
    CHOICES: " lacks the line that makes it an experiment: add `# @package _global_` as its first line",
    "seed: 3\n": " lacks the line that makes it an experiment: add `# @package _global_` as its first line",
    f"{HEADER}defaults: [/model: resnext_small]": LIST.format(
        "/model: resnext_small", "override /model: resnext_small"
    ),
    f"{HEADER}defaults: [override /recipe: small, model: x]": LIST.format("model: x", "override /model: x"),
    f"{HEADER}defaults: [override model: x]": LIST.format("override model: x", "override /model: x"),
    f"{HEADER}defaults: [/experiment: finetune]": LIST.format("/experiment: finetune", "finetune"),
    f"{HEADER}defaults: [override /recipe: small, finetune]": (
        ": in its defaults list, `finetune` has to stand before every `override`"
    ),
    f"{HEADER}defaults: [override /modle: x]": ": /modle in its defaults list is not a group; did you mean model?",
    f"{HEADER}defaults: [override /logger: cvs]": (
        ": `override /logger: cvs` in its defaults list names a file that does not exist; "
        "logger is one of csv, wandb; did you mean csv?"
    ),
    f"{HEADER}defaults: {{override /logger: csv}}": " cannot be composed: ValueError: Invalid defaults list",
    f"# @package foo\n{CHOICES}": " has `# @package foo`: write `# @package _global_` as its first line",
    f"{HEADER}defaults: [override /model resnext_small]": LIST.format(
        "override /model resnext_small", "override /model: resnext_small"
    ),
    f"{HEADER}defaults: [override /recipe: [small, a1]]": (
        ": `override /recipe: [small, a1]` in its defaults list: give one name"
    ),
    "": " is empty: choose a model, data and a recipe in it",
    f"{HEADER}# to be written\n": " is empty: choose a model, data and a recipe in it",
}


@pytest.mark.parametrize("text", FORGOTTEN)
def test_a_mistake_in_an_experiment_names_the_file_and_the_line_to_write(text: str):
    path = write("experiment/mine", text)
    assert refusal("experiment=mine").startswith(f"{path}{FORGOTTEN[text]}")


def test_the_corrected_line_is_one_that_composes():
    """The remedies of the messages above, in one file."""
    write("experiment/base", f"{HEADER}defaults: [override /model: resnext_small]\nseed: 3\n")
    write("experiment/mine", f"{HEADER}defaults: [base, override /recipe: small, override /logger: csv]\n")
    config = compose("experiment=mine")
    assert (config.seed, config.model.options.layers, config.recipe.image_size) == (3, (1, 1, 1), 8)
    assert config.logger.mode == "disabled"


def test_the_experiment_in_the_docs_composes():
    (text,) = re.findall(r"```yaml\n(# @package _global_\n# ~/my-configs.*?)```", PAGE, re.DOTALL)
    write("experiment/mine", text)
    config = compose("experiment=mine", "data.root=/my/photos")
    assert (config.experiment, config.data.name, config.data.root) == ("mine", "image_folder", "/my/photos")
    assert (config.model.name, config.model.weights) == ("resnext50_32x4d", "torchvision:resnext50_32x4d")
    assert (config.recipe.file, config.recipe.epochs, config.recipe.optimizer.lr) == ("finetune", 10, 0.005)
    assert config.logger.mode == "disabled"


@pytest.mark.parametrize(
    ("name", "text", "mistake"),
    [
        ("recipe/mine", "epochs: -1", "recipe.epochs=-1 is not allowed"),
        ("recipe/mine", "epoch: 1", "recipe.epoch is not a configuration key; did you mean recipe.epochs?"),
        ("recipe/mine", "schedule: {name: step, milestones: [3]}", "recipe.schedule.milestones is for"),
        ("recipe/mine", "source: https://me:secret@host/", "recipe.source holds an address with a user"),
        ("recipe/mine", "loss: {options: {gamma: 1}}", "recipe.loss.options.gamma is not an option of"),
        ("model/mine", "cardinality: 0", "model.options.cardinality=0 is not allowed"),
        ("data/mine", "mean: 0.5", "data.mean=0.5 is not allowed: give a list, such as"),
        ("experiment/mine", "trainer: {devices: none}", "trainer.devices=none is not allowed"),
        ("experiment/mine", "epochs: 3", "epochs is not a configuration key; did you mean recipe.epochs?"),
    ],
)
def test_a_wrong_value_in_a_file_names_the_file(name: str, text: str, mistake: str):
    group, _, _ = name.partition("/")
    base = {"recipe": "small", "model": "resnext_small", "data": "digits"}
    for each, shipped in base.items():
        write(f"{each}/mine", f"defaults: [{shipped}, _self_]\n" + (f"{text}\n" if each == group else ""))
    choices = "defaults: [override /model: mine, override /data: mine, override /recipe: mine]\n"
    write("experiment/mine", f"{HEADER}{choices}" + (f"{text}\n" if group == "experiment" else "seed: 1\n"))
    for arguments in ([], ["-m", "seed=1,2", "run=s"]):
        assert refusal("experiment=mine", *arguments).startswith(f"{Path('own').absolute()}/{name}.yaml: {mistake}")


def test_a_value_of_the_command_line_names_no_file():
    write("recipe/mine", "defaults: [small, _self_]\nepochs: -1\nloss: {label_smoothing: 2}\n")
    own = ["recipe=mine", "recipe.loss.label_smoothing=0"]
    assert refusal(*own, "recipe.epochs=-2").startswith("recipe.epochs=-2 is not allowed")
    assert refusal(*own, "recipe={epochs: -2}").startswith("recipe.epochs=-2 is not allowed")
    assert refusal("experiment=resnext_digits", "seed=-1").startswith("seed=-1 is not allowed")
    assert compose(*own, "recipe.epochs=2").recipe.epochs == 2
    wrong_part = refusal("experiment=resnext_digits", "model.name=resnext29_8x64d")
    assert wrong_part.startswith("model.options.layers is not an option of model.name=resnext29_8x64d")


def test_names_that_are_not_a_list_and_a_value_that_does_not_end_are_named():
    Path("own/recipe").mkdir(parents=True)
    assert refusal("logger.names=5").startswith("logger.names=5 is not allowed: give a list")
    assert refusal("model.options.layers=[1").startswith("model.options.layers=[1 cannot be read as KEY=VALUE")


def test_the_later_of_two_files_is_named():
    write("recipe/base", "defaults: [small, _self_]\nepochs: 3\n")
    write("recipe/mine", "defaults: [base, _self_]\nbatch_size: 0\n")
    late = write("experiment/late", f"{HEADER}defaults: [override /recipe: base]\nrecipe: {{epochs: 0}}\n")
    assert refusal("recipe=mine").startswith(f"{Path('own').absolute()}/recipe/mine.yaml: recipe.batch_size=0")
    assert refusal("experiment=late").startswith(f"{late}: recipe.epochs=0")


def test_all_keys_that_a_file_lacks_are_named():
    write("recipe/short", "epochs: 5\n")
    lacking = "recipe.batch_size, recipe.optimizer.lr, recipe.optimizer.name"
    assert refusal("experiment=resnext_digits", "recipe=short").startswith(lacking)
    assert "are missing: write them into the file of recipe=short, or give" in refusal("recipe=short")
