"""The average of the weights, compared with the averages of timm and torchvision, and in a run."""

import copy
import json

import pytest
import torch
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel

from resnext.callbacks.ema import update_average
from resnext.config.schema import ModelConfig
from resnext.models.factory import build_model, load_into
from resnext.models.resnext import ResNeXt
from resnext.models.weights import load_weights
from resnext.runtime.checkpoint import read_checkpoint
from resnext.training.fit import fit
from support.evaluation import evaluated
from support.small_run import make_run, read_metrics, small_config


def small_network() -> ResNeXt:
    torch.manual_seed(0)
    return ResNeXt([1, 1], 2, 16, num_classes=5, width=8, stem="cifar")


def train_step(network: torch.nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    network(torch.randn(4, 3, 8, 8)).square().sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad)
            parameter.grad = None


def test_updates_agree_with_timm_and_torchvision():
    """Compares parameters and batch statistics. The first update copies, like torchvision's AveragedModel."""
    decay = 0.9
    network = small_network()
    ours, timms = copy.deepcopy(network), ModelEmaV3(network, decay=decay)
    torchvisions = AveragedModel(
        network, avg_fn=lambda mean, value, _count: decay * mean + (1 - decay) * value, use_buffers=True
    )
    for step in range(4):
        train_step(network, step)
        update_average(ours, network, decay if step else 0.0)
        timms.update(network) if step else timms.set(network)
        torchvisions.update_parameters(network)
    theirs = torchvisions.module.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, timms.module.state_dict()[name], msg=name)
        if value.is_floating_point():  # torchvision also averages the count of batches, and truncates the result
            torch.testing.assert_close(value, theirs[name], msg=name)
    assert not torch.allclose(ours.fc.weight, network.fc.weight)


def test_a_run_saves_validates_and_selects_by_its_average(digits, capsys):
    config = small_config(
        digits, recipe__max_steps=6, recipe__batch_size=360, recipe__epochs=3, checkpoint__every_steps=1,
        recipe__ema={"decay": 0.6, "every_steps": 2},
    )  # fmt: skip
    run = make_run(config)
    fit(run)
    rows = [row for row in read_metrics(run) if row["val/top1"]]
    assert all(row["val_ema/top1"] and row["val_ema/loss"] != row["val/loss"] for row in rows)
    best = max(rows, key=lambda row: float(row["val_ema/top1"]))
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["best_epoch"] == int(best["epoch"])
    assert (summary["val_ema/top1"], summary["val/top1"]) == (float(best["val_ema/top1"]), float(best["val/top1"]))
    assert read_checkpoint(run.checkpoints / "best.ckpt").step == int(best["step"])

    found = evaluated(run)["networks"]
    assert found["ema"]["top1"]["value"] == float(best["val_ema/top1"])
    assert found["raw"]["top1"]["value"] == float(best["val/top1"])
    assert "ema       EMA, 0.6 every 2 steps; chooses best.ckpt" in capsys.readouterr().out


def test_an_average_in_its_warmup_is_a_copy(digits):
    options = {"recipe__epochs": 2, "recipe__batch_size": 720}
    run = make_run(small_config(digits, **options, recipe__ema={"decay": 0.9, "warmup_epochs": 2}))
    fit(run)
    checkpoint = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() >= checkpoint["state_dict_ema"].keys()
    for name, value in checkpoint["state_dict_ema"].items():
        assert torch.equal(value, checkpoint["state_dict"][name]), name
    assert [row["val_ema/loss"] for row in read_metrics(run) if row["val/loss"]] == [
        row["val/loss"] for row in read_metrics(run) if row["val/loss"]
    ]


def test_weights_of_a_checkpoint_with_an_average_are_the_average(digits):
    run = make_run(small_config(digits, recipe__max_steps=3, recipe__ema={"decay": 0.5}))
    fit(run)
    path = run.checkpoints / "last.ckpt"
    averaged = torch.load(path, weights_only=True)["state_dict_ema"]
    network = build_model(run.config.model, 10)
    load_into(network, load_weights(str(path)), ModelConfig(name="resnext50_32x4d"))
    assert all(torch.equal(value, averaged[f"network.{name}"]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("scaled", "decay"), [(False, 0.999), (True, 1 - 0.001 * 32 * 10 / 2)])
def test_the_decay_of_an_update(scaled: bool, decay: float):
    ema = {"decay": 0.999, "every_steps": 10, "scaled": scaled}
    assert small_config("/x", recipe__ema=ema).recipe.ema_decay == pytest.approx(decay)
