"""The settings of a sweep: arguments over the sweep's file, and one line for each mistake."""

import re
from pathlib import Path

import pytest

from resnext.config.compose import CONFIGS
from resnext.config.sweep import SweepConfig, change_sweep, parse_sweep
from resnext.errors import UserError

LR = "recipe.optimizer.lr=0.1,0.2"


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/mine.yaml").write_text(
        "overrides: [experiment=resnext_digits, recipe.epochs=3]\n"
        "space: {recipe.optimizer.lr: 'interval(0.1, 1.0)', seed_of_nothing: 1}\n".replace(", seed_of_nothing: 1", "")
        + "sampler: tpe\ntrials: 7\nseeds: [4, 5]\n"
    )
    return [CONFIGS, tmp_path]


def test_arguments_are_settings_spaces_or_overrides():
    name, sweep = parse_sweep(["run=a", "experiment=resnext_digits", LR, "sweep.seeds=[0,1]", "seed=3"], [CONFIGS])
    assert name == "a"
    assert sweep.overrides == ("experiment=resnext_digits", "seed=3")
    assert sweep.space == {"recipe.optimizer.lr": "0.1,0.2"}
    assert sweep.seeds == (0, 1)


def test_an_old_key_of_the_network_is_moved():
    assert parse_sweep(["model.width=8,16"], [CONFIGS]).sweep.space == {"model.options.width": "8,16"}


def test_an_argument_replaces_the_same_key_of_the_file(folders: list[Path]):
    name, sweep = parse_sweep(["sweep=mine"], folders)
    assert (name, sweep.trials, sweep.seeds, sweep.space) == (
        "mine",
        7,
        (4, 5),
        {"recipe.optimizer.lr": "interval(0.1, 1.0)"},
    )
    arguments = ["sweep=mine", "recipe.epochs=9", "recipe.optimizer.lr=0.3", "recipe.batch_size=64,128"]
    changed = parse_sweep([*arguments, "sweep.trials=2"], folders).sweep
    assert changed.overrides == ("experiment=resnext_digits", "recipe.epochs=9", "recipe.optimizer.lr=0.3")
    assert changed.space == {"recipe.batch_size": "64,128"}
    assert changed.trials == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe.epochs=3"], "a sweep needs the values of at least one key, such as recipe.optimizer.lr=0.05,0.1,0.2"),
        (["seed=1,2"], "seed=1,2: a sweep cannot search over seed: give sweep.seeds=[0,1,2], which reports mean and"),
        (["run=a,b"], "run=a,b: a sweep cannot search over run: it names the sweep"),
        ([LR, "sweep.sampler=tpe"], "sweep.sampler=tpe needs a number of trials: give sweep.trials=N"),
        ([LR, "sweep.sampler=tpee"], "sweep.sampler=tpee is not allowed: it should be 'grid', 'random', 'tpe' or 'gp'"),
        ([LR, "sweep.trails=3"], "sweep.trails is not a configuration key; did you mean sweep.trials?"),
        ([LR, "sweep.trials=0"], "sweep.trials=0 is not allowed: it should be greater than or equal to 1"),
        ([LR, "sweep.seeds=1,2"], "sweep.seeds=1,2: write a list in brackets, such as sweep.seeds=[0,1,2]"),
        ([LR, "sweep.seeds=[1,1]"], "sweep.seeds=[1, 1] has a seed twice"),
        (
            [LR, "sweep.metric=val/loss"],
            "sweep.metric=val/loss is better when it is lower: give sweep.direction=minimize",
        ),
        ([LR, "sweep=nosuch"], "sweep=nosuch does not exist; sweep is one of "),
        (["recipe.optimizer.lr=tag(log"], "recipe.optimizer.lr=tag(log cannot be read as KEY=VALUE or KEY=SPACE"),
        (["sweep.overrides=[]"], "sweep.overrides is not a configuration key"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        parse_sweep(arguments, [CONFIGS])


def test_a_sweep_that_exists_can_change_its_places_and_limits():
    sweep = SweepConfig(space={"lr": "1,2"})
    assert change_sweep(sweep, ["sweep.parallel=4", "sweep.budget_minutes=5"], "a").places == 4
    with pytest.raises(UserError, match=r"^sweep.trials=5: the sweep a exists; only sweep.parallel, .* can change"):
        change_sweep(sweep, ["sweep.trials=5"], "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "has no settings: it needs a space or points"),
        ("space: [a, b]", "write space as lines `KEY: VALUES`"),
        ("overrides: recipe.epochs=8\nspace: {a: '1,2'}", "write overrides as a list"),
        ("points: {a: {b: x=1}}", "write points as lines"),
        ("points: {a: [b]}", "write points as lines"),
        ("points: {a: {b: }}", "write points as lines"),
        ("trails: 3", "sweep.trails is not a configuration key; did you mean sweep.trials?"),
        ("space: {a: 1", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(folders: list[Path], content: str, message: str):
    (folders[1] / "sweep/wrong.yaml").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        parse_sweep(["sweep=wrong"], folders)
