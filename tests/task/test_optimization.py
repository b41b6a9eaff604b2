"""The learning rate in closed form and against torch's schedulers; parameter groups by hand."""

import math

import pytest
import torch
from torch import nn

from conftest import small_config
from resnext.config_recipe import OptimizerConfig
from resnext.errors import UserError
from resnext.task.optimization import build_optimizer, lr_at, total_steps

STEPS = 50  # an epoch


def recipe(**changes):
    return small_config("/x", recipe__epochs=100, recipe__optimizer__lr=0.1, **changes).recipe


def test_step_schedule_is_torchs_step_lr():
    ours = recipe(recipe__schedule={"name": "step", "decay_epochs": 30})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    for epoch in range(100):
        for step in (0, STEPS - 1):
            assert lr_at(epoch * STEPS + step, ours, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_cosine_with_warmup_is_torchs_sequence():
    ours = recipe(recipe__schedule={"name": "cosine", "warmup_epochs": 5, "warmup_lr": 0.001, "min_lr": 1e-6})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, 5 * STEPS)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 95 * STEPS, eta_min=1e-6)
    theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [5 * STEPS])
    for step in range(100 * STEPS):
        assert lr_at(step, ours, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        theirs.step()


def test_closed_forms():
    cosine = recipe(recipe__schedule={"name": "cosine", "warmup_epochs": 10})
    assert lr_at(0, cosine, STEPS) == 0
    assert lr_at(5 * STEPS, cosine, STEPS) == pytest.approx(0.05)
    assert lr_at(10 * STEPS, cosine, STEPS) == 0.1
    assert lr_at(55 * STEPS, cosine, STEPS) == pytest.approx(0.05)
    assert lr_at(100 * STEPS - 1, cosine, STEPS) == pytest.approx(0.05 * (1 + math.cos(math.pi * 4499 / 4500)))
    assert lr_at(3000, recipe(recipe__schedule={"name": "constant"}), STEPS) == 0.1


def test_max_steps_shortens_the_cosine():
    short = recipe(recipe__max_steps=100)
    assert total_steps(short, STEPS) == 100
    assert lr_at(50, short, STEPS) == pytest.approx(0.05)


@pytest.mark.parametrize("decayed", [True, False])
def test_norms_and_biases_are_decayed_or_not(decayed: bool):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    config = OptimizerConfig(
        name="momentum", lr=0.1, weight_decay=1e-4, decayed="all" if decayed else "all_but_norms_and_biases"
    )
    groups = build_optimizer(network, config).param_groups
    by_decay = {group["weight_decay"]: [parameter.ndim for parameter in group["params"]] for group in groups}
    if decayed:
        assert by_decay == {1e-4: [2, 1, 1, 1]}
    else:
        assert by_decay == {1e-4: [2], 0.0: [1, 1, 1]}


@pytest.mark.parametrize(("name", "nesterov"), [("momentum", False), ("sgd", True)])
def test_timms_two_names_of_sgd(name: str, nesterov: bool):
    """One step of torch's own SGD with the same numbers."""
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizers = [
        build_optimizer(ours, OptimizerConfig(name=name, lr=0.1, weight_decay=0.01)),
        torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=0.01, nesterov=nesterov),
    ]
    for _ in range(3):
        for network, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            network(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
    assert torch.equal(ours.weight, theirs.weight)


def test_an_optimizer_that_needs_what_is_not_here():
    with pytest.raises(UserError, match=r"recipe.optimizer.name=fusedsgd cannot be built here: "):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(name="fusedsgd", lr=0.1))


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon", "rmsproptf", "lars"])
def test_any_timm_optimizer_takes_a_step(name: str):
    network = nn.Linear(3, 2)
    optimizer = build_optimizer(network, OptimizerConfig(name=name, lr=0.1))
    before = network.weight.clone()
    network(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(network.weight, before)


def test_an_unknown_optimizer_is_refused_with_the_nearest():
    with pytest.raises(
        UserError, match=r"recipe.optimizer.name=adamww is not an optimizer of timm; did you mean adamw\?"
    ):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(name="adamww", lr=0.1))
