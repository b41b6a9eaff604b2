"""Averages agree with torch.optim.swa_utils, numpy and a closed form; a greedy soup with all choices tried."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from resnext.__main__ import run_verb
from resnext.config.checkpoint_metadata import parse_metadata
from resnext.errors import UserError
from resnext.inference.average import RunImages, Trial, greedy_soup, mean_of
from resnext.inference.average_parts import Part, find_parts
from resnext.inference.batch_statistics import recompute_statistics, training_batches
from resnext.inference.network import TrainedNetwork, load_network
from resnext.models.factory import build_model
from resnext.run.directory import Run
from resnext.runtime.world import World
from resnext.training.fit import build_datamodule, fit
from resnext.training.plan import plan_training
from support.small_run import make_run, read_metrics, small_config, write_images

EPOCHS = 3
TRAINING = {"mixing": {"mixup_alpha": 0.2}, "ema": {"decay": 0.5}, "batch_size": 16, "epochs": EPOCHS}


def make_small_run(images: Path, name: str, **changes: object) -> Run:
    options = {f"recipe__{key}": value for key, value in TRAINING.items()}
    return make_run(small_config(images, run=name, checkpoint__keep_every_epochs=1, **{**options, **changes}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/a with an EMA and runs/b without, on images/."""
    folder = tmp_path_factory.mktemp("trained")
    write_images(folder / "images", {"train/cat": 30, "train/dog": 36, "val/cat": 11, "val/dog": 10})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit(make_small_run(folder / "images", "a"))
        fit(make_small_run(folder / "images", "b", seed=1, recipe__ema={"decay": None}))
    return folder


@pytest.fixture
def runs(folder: Path, tmp_path: Path) -> tuple[Run, Run]:
    """Copies of the two runs, in this test's folder."""
    shutil.copytree(folder / "runs", "runs", symlinks=True)
    return Run.open(Path("a")), Run.open(Path("b"))


def states_of(parts: list[Part], key: str) -> list[dict[str, torch.Tensor]]:
    contents = [torch.load(part.path, weights_only=True)[key] for part in parts]
    return [{name.removeprefix("network."): value for name, value in content.items()} for content in contents]


@pytest.mark.parametrize(("weights", "key"), [("ema", "state_dict_ema"), ("raw", "state_dict")])
def test_the_mean_is_that_of_torch_and_of_numpy(runs: tuple[Run, Run], weights: str, key: str):
    parts = find_parts([runs[0]])
    assert [part.name for part in parts] == ["epoch-001", "epoch-002", "epoch-003"]
    found = mean_of(parts, weights).network  # type: ignore[arg-type]
    states = states_of(parts, key)
    theirs = load_network(parts[0].path).network
    averaged = AveragedModel(theirs, use_buffers=False)
    for state in states:
        theirs.load_state_dict(state)
        averaged.update_parameters(theirs)
    for name, value in averaged.module.named_parameters():
        torch.testing.assert_close(found.get_parameter(name), value, rtol=1e-6, atol=1e-7)
    for name, value in found.state_dict().items():
        if value.is_floating_point():
            exact = np.mean([state[name].numpy().astype(np.float64) for state in states], axis=0)
            np.testing.assert_array_equal(value.numpy(), exact.astype(np.float32))
        else:
            assert torch.equal(value, states[-1][name])


class Linear(nn.Module):
    """The logits are an affine function of the images, without batch norm."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.flatten(1))


@pytest.fixture(scope="module")
def linear_runs(folder: Path) -> list[Run]:
    changes = {"recipe__epochs": 1, "recipe__ema": {"decay": None}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("resnext.training.parts.build_model", build_linear)
        runs = [make_small_run(folder / "images", f"linear-{seed}", seed=seed, **changes) for seed in range(3)]
        for run in runs:
            fit(run)
    return [Run(folder / run.path) for run in runs]


@pytest.fixture
def linear(linear_runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Three short runs of a linear network, which replaces the network that their configuration names."""
    monkeypatch.setattr("resnext.inference.network.build_model", build_linear)
    return linear_runs


def build_linear(_config: object, classes: int, **_options: object) -> Linear:
    return Linear(classes)


def test_the_logits_of_averaged_linear_networks_are_the_mean_of_their_logits_and_nothing_is_recomputed(
    linear: list[Run], capsys: pytest.CaptureFixture[str]
):
    names = [str(run.path) for run in linear]
    assert run_verb(["average", *names, "--output", "soup.pt"]) == 0
    assert "recomputed" not in capsys.readouterr().out
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    networks = [load_network(run.checkpoints / "best.ckpt").network.double() for run in linear]
    expected = torch.stack([network(images) for network in networks]).mean(0)
    torch.testing.assert_close(load_network(Path("soup.pt")).network.double()(images), expected, rtol=0, atol=1e-6)


def test_a_greedy_soup_is_the_one_that_the_paper_describes(linear: list[Run]):
    """Tries all subsets first; the soup then follows from their accuracies."""
    run = linear[1]
    parts, weights, biases = [], [], []
    for name, scale, noise in (("minus", -9.0, 0.0), ("one", 1.0, 1e-4), ("other", 1.0, -1e-4)):
        content = torch.load(run.checkpoints / "best.ckpt", weights_only=True)
        state, random = content["state_dict"], torch.Generator().manual_seed(0)
        for key, value in state.items():
            state[key] = scale * value + noise * torch.randn(value.shape, generator=random)
        torch.save(content, f"{name}.ckpt")
        parts.append(Part(name, run, Path(f"{name}.ckpt")))
        weights.append(state["network.fc.weight"])
        biases.append(state["network.fc.bias"])
    images = RunImages(run, mean_of(parts, "ema").metadata)
    accuracy = {}
    for chosen in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        network = Linear(2)
        network.fc.weight.data = torch.stack([weights[at] for at in chosen]).mean(0)
        network.fc.bias.data = torch.stack([biases[at] for at in chosen]).mean(0)
        accuracy[frozenset(chosen)] = images.validate(TrainedNetwork(network.eval(), images.metadata), "").top1
    order = sorted(range(3), key=lambda at: accuracy[frozenset([at])], reverse=True)
    expected = {order[0]}
    for at in order[1:]:
        if accuracy[frozenset({*expected, at})] >= accuracy[frozenset(expected)]:
            expected.add(at)
    assert len(expected) == 2, accuracy  # one is added and one is left out
    scores = [images.validate(load_network(part.path), part.name) for part in parts]
    trials: list[Trial] = []
    soup = greedy_soup(parts, scores, "ema", images, recompute=True, tell=trials.append)
    assert {parts.index(part) for part in soup.parts} == expected
    assert soup.scores.top1 == accuracy[frozenset(expected)]
    assert [parts.index(trial.part) for trial in trials] == order
    assert [trial.part for trial in trials if trial.is_added] == soup.parts


def test_the_batch_statistics_are_those_of_torch_on_the_same_images(runs: tuple[Run, Run]):
    run, parts = runs[0], find_parts([runs[0]])
    ours, theirs = mean_of(parts, "ema"), mean_of(parts, "ema").network
    images = RunImages(run, ours.metadata)
    batches = list(training_batches(run.config, images.train, images.device, lambda _done: None))
    assert images.recompute(ours) == sum(map(len, batches)) == 64  # of 66 images, in batches of 16
    update_bn(batches, theirs)
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.network.state_dict()[name], value), name
    assert not any(module.training for module in ours.network.modules())
    assert {module.momentum for module in ours.network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_the_images_are_those_of_the_last_epoch_of_the_training(runs: tuple[Run, Run]):
    run = runs[1]
    config = replace(run.config, recipe=replace(run.config.recipe, mixing=small_config(Path()).recipe.mixing))
    plan = plan_training(run, World(0, 1))
    datamodule = build_datamodule(plan, Path("skipped.txt"))
    trainer = SimpleNamespace(global_rank=0, world_size=1, num_devices=1, accumulate_grad_batches=1)
    trainer.strategy = SimpleNamespace(root_device=torch.device("cpu"))
    datamodule.trainer = cast(Any, trainer)
    loader = datamodule.train_dataloader()
    loader.batches.set_epoch(EPOCHS - 1)
    theirs = [datamodule.on_after_batch_transfer(batch, 0)[0] for batch in loader]
    ours = list(training_batches(config, plan.parts.train, torch.device("cpu"), lambda _done: None))
    assert len(ours) == len(theirs) == 4
    assert all(torch.equal(*pair) for pair in zip(ours, theirs, strict=True))


def test_dropout_is_off_while_statistics_are_recomputed():
    network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3))
    images = torch.randn(8, 3, 4, 4)
    recompute_statistics(network, [images])
    torch.testing.assert_close(network[1].running_mean, images.mean((0, 2, 3)))


def test_frozen_batch_norms_keep_their_statistics():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    images = torch.randn(8, 3, 4, 4)
    recompute_statistics(network, [images], ["0"])
    assert torch.equal(network[0].running_mean, torch.zeros(3))
    torch.testing.assert_close(network[1].running_mean, images.mean((0, 2, 3)))


def test_the_table_has_the_accuracies_of_the_training_and_the_file_those_of_the_average(
    runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]
):
    assert run_verb(["average", "runs/a"]) == 0
    *table, batch, wrote = capsys.readouterr().out.splitlines()
    validations = [row for row in read_metrics(runs[0]) if row["val/top1"]]
    for line, row in zip(table[1:], validations, strict=False):
        assert f"top-1 {100 * float(row['val_ema/top1']):6.2f} %" in line
        assert f"loss {float(row['val_ema/loss']):.4f}" in line
    assert batch == "batch     statistics recomputed on 64 training images"
    assert wrote.startswith("wrote     runs/a/averages/all.pt, ")
    images = RunImages(runs[0], load_network(Path("runs/a/averages/all.pt")).metadata)
    found = images.validate(load_network(Path("runs/a/averages/all.pt")), "")
    assert f"top-1 {100 * found.top1:6.2f} %  top-5 100.00 %  loss {found.loss:.4f}" in table[4]
    assert run_verb(["export", "runs/a/averages/all.pt", "--format", "safetensors"]) == 0
    before = torch.load("runs/a/averages/all.pt", weights_only=True)["state_dict"]
    assert run_verb(["average", "runs/a"]) == 0  # again: the same file
    after = torch.load("runs/a/averages/all.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_without_recomputation_the_statistics_are_averaged_too(runs: tuple[Run, Run]):
    assert run_verb(["average", "runs/a", "runs/b", "--no-recompute-batchnorm", "--output", "soup.pt"]) == 0
    a = torch.load("runs/a/checkpoints/best.ckpt", weights_only=True)["state_dict_ema"]["network.bn1.running_var"]
    b = torch.load("runs/b/checkpoints/best.ckpt", weights_only=True)["state_dict"]["network.bn1.running_var"]
    found = torch.load("soup.pt", weights_only=True)
    torch.testing.assert_close(found["state_dict"]["bn1.running_var"], (a + b) / 2)
    assert found["average_of"] == ["a/best.ckpt", "b/best.ckpt"]


def test_the_best_are_chosen_by_metrics_csv(runs: tuple[Run, Run]):
    """Of equal accuracies, the first."""
    path = runs[0].path / "metrics.csv"
    header, *_ = path.read_text().splitlines()
    columns = header.split(",")
    rows = [
        {"epoch": 1, "step": 4, "val/top1": 0.1, "val_ema/top1": 0.9},
        {"epoch": 2, "step": 8, "val/top1": 0.3, "val_ema/top1": 0.2},
        {"epoch": 3, "step": 12, "val/top1": 0.2, "val_ema/top1": 0.9},
    ]
    lines = [",".join(str(row.get(column, "")) for column in columns) for row in rows]
    path.write_text("\n".join([header, *lines, ""]))
    name = lambda parts: [part.name for part in parts]  # noqa: E731
    assert name(find_parts([runs[0]], best=2)) == ["epoch-001", "epoch-003"]
    assert name(find_parts([runs[0]], best=2, raw=True)) == ["epoch-002", "epoch-003"]
    assert name(find_parts([runs[0]], last=2)) == ["epoch-002", "epoch-003"]
    path.write_text("\n".join([header, *lines[:2], ""]))
    with pytest.raises(UserError, match=r"metrics.csv has no val_ema/top1 of epoch 3: give --last N instead"):
        find_parts([runs[0]], best=2)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run_verb(["average", *arguments]) == 2
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    return output


def test_what_cannot_be_averaged_is_refused_in_one_line(runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str]):
    assert "runs/a has 3 kept checkpoints, and 4 are needed" in refused(capsys, "a", "--last", "4")
    assert "give 2 or more" in refused(capsys, "a", "--best", "1")
    assert "runs/a is given twice" in refused(capsys, "a", "runs/b", "runs/a")
    assert "--last and --best choose checkpoints of one run" in refused(capsys, "a", "b", "--last", "2")
    assert "only the training writes to checkpoints/" in refused(
        capsys, "a", "--output", "runs/a/checkpoints/last.ckpt"
    )
    assert "--output runs is not a file" in refused(capsys, "a", "--output", "runs")
    os.truncate("runs/a/checkpoints/epoch-002.ckpt", 1000)
    assert "runs/a/checkpoints/epoch-002.ckpt is damaged" in refused(capsys, "a")
    shutil.copy("runs/b/checkpoints/epoch-002.ckpt", "runs/a/checkpoints/epoch-002.ckpt")
    assert "runs/a/checkpoints/epoch-002.ckpt belongs to another run" in refused(capsys, "a")
    content = torch.load("runs/a/checkpoints/epoch-001.ckpt", weights_only=True)
    content["state_dict_ema"]["network.fc.bias"][0] = float("nan")
    torch.save(content, "runs/a/checkpoints/epoch-002.ckpt")
    assert "epoch-002.ckpt has values in fc.bias that are not finite" in refused(capsys, "a")
    for path in Path("runs/a/checkpoints").glob("epoch-*"):
        path.unlink()
    assert "train with checkpoint.keep_every_epochs=1" in refused(capsys, "a")
    assert not Path("runs/a/averages").exists() or not list(Path("runs/a/averages").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda metadata: metadata["model"]["options"].update(base_width=8),
            "model.options.base_width is 8 and not 16",
        ),
        (lambda found: found.update(classes=["cat", "duck"]), "class 1 is 'duck' and not 'dog'"),
        (lambda found: found.update(classes=["cat", "dog", "emu"]), "classes is 3 of them and not 2"),
        (lambda found: found["evaluation"].update(image_size=16), "evaluation.image_size is 16 and not 8"),
        (
            lambda metadata: metadata.update(mean=[0.5, 0.5, 0.5]),
            "mean is [0.5, 0.5, 0.5] and not [0.485, 0.456, 0.406]",
        ),
    ],
)
def test_the_first_difference_of_two_networks_is_named(
    runs: tuple[Run, Run], capsys: pytest.CaptureFixture[str], change, message: str
):
    path = Path("runs/b/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    change(content["metadata"])
    metadata = parse_metadata(path, content)
    # the weights must fit the changed network
    state = build_model(metadata.model, len(metadata.classes)).state_dict()
    content["state_dict"] = {f"network.{name}": value for name, value in state.items()}
    torch.save(content, path)
    expected = f"{path} cannot be averaged with runs/a/checkpoints/best.ckpt: {message}; average checkpoints of one"
    assert expected in refused(capsys, "a", "b")
