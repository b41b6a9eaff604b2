"""Frozen parts of a network: which tensors they are, compared with timm's own `freeze`, and names that are wrong."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from resnext.config.schema import ModelConfig
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.models.freezing import describe_frozen, find_frozen_modules, freeze
from resnext.task.classification import ClassificationTask
from resnext.task.optimization import build_optimizer
from support.small_run import small_config

SMALL = {"layers": [1, 1], "cardinality": 2, "base_width": 16, "width": 8, "stem": "cifar"}
OURS = {"name": "resnext", "options": SMALL}


def frozen_network(model: dict, *prefixes: str) -> nn.Module:
    torch.manual_seed(0)
    config = ModelConfig(**model, freeze=prefixes)
    network = build_model(config, 3)
    freeze(network, config)
    return network


def task_of(network: nn.Module, *prefixes: str, **recipe: object) -> ClassificationTask:
    recipe_config = small_config(Path("/x"), **recipe).recipe
    optimizer = build_optimizer(network, recipe_config.optimizer)
    return ClassificationTask(network, recipe_config, seed=0, log_every_steps=1, optimizer=optimizer, frozen=prefixes)


@pytest.mark.parametrize(
    ("model", "prefixes"), [(OURS, ("conv1", "bn1", "layer1")), ({"name": "timm/test_resnet"}, ("conv1", "layer1.0"))]
)
def test_frozen_parts_compute_and_learn_what_timms_frozen_parts_do(model: dict, prefixes: tuple[str, ...]):
    ours, theirs = frozen_network(model, *prefixes), frozen_network(model)
    for module in (*ours.modules(), *theirs.modules()):
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(0.1)
    task = task_of(ours, *prefixes).train()
    timm.utils.freeze(theirs, list(prefixes))
    theirs.train()
    images = torch.rand(4, 3, 32, 32)
    for network in (ours, theirs):
        network(images).square().sum().backward()
    for name, value in theirs.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(ours.get_parameter(name).grad, value.grad, rtol=1e-3, atol=1e-4, msg=name)
        else:
            assert ours.get_parameter(name).grad is None
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(task.network.state_dict()[name], value, msg=name)  # also the running statistics


@pytest.mark.parametrize("layer_decay", [None, 0.5])
@pytest.mark.parametrize(
    ("model", "prefixes"), [(OURS, ("conv1", "layer1")), ({"name": "timm/test_vit"}, ("cls_token", "blocks.0"))]
)
def test_the_optimizer_holds_the_other_parameters_only(model: dict, prefixes: tuple[str, ...], layer_decay: float):
    network = frozen_network(model, *prefixes)
    optimizer = {"name": "adamw", "lr": 0.1, "weight_decay": 0.1, "layer_decay": layer_decay}
    groups = task_of(network, recipe__optimizer=optimizer).optimizer.param_groups
    held = {id(parameter) for group in groups for parameter in group["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in held}
    assert names == {name for name, _ in network.named_parameters() if not name.startswith(prefixes)}


def test_a_prefix_ends_at_a_dot():
    network = frozen_network({"name": "timm/test_vit"}, "blocks.1", "head.weight", "norm")
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        "head.weight",
        *(name for name, _ in network.named_parameters() if name.startswith(("blocks.1.", "norm."))),
    }


def test_modes_follow_each_call_of_train():
    """Also of dropout and stochastic depth; a parameter alone does not change the mode of its module."""
    task = task_of(frozen_network(OURS, "layer1", "fc.weight"), "layer1", "fc.weight")
    for mode in (True, False, True):
        task.train(mode)
        training = {name.partition(".")[0]: module.training for name, module in task.network.named_modules() if name}
        assert training["layer1"] is False
        assert {training[name] for name in ("conv1", "bn1", "layer2", "fc")} == {mode}


def test_a_shared_module_is_frozen_by_each_of_its_names():
    network = nn.Module()
    network.a = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    network.b = network.a
    assert network.a[1] in find_frozen_modules(network, ["b"])


@pytest.mark.parametrize(
    ("model", "prefix", "problem"),
    [
        (OURS, "layr1", "model.freeze=layr1 matches no parameter of model.name=resnext; did you mean layer1?"),
        (OURS, "layer1.", "model.freeze=layer1. matches no parameter of model.name=resnext; did you mean layer1"),
        (OURS, "relu", "matches no parameter of model.name=resnext; its parts are conv1, bn1, layer1, layer2, fc"),
        ({"name": "timm/test_vit"}, "block.0", "of model.name=timm/test_vit; did you mean blocks.0?"),
    ],
)
def test_a_name_that_matches_nothing_is_refused(model: dict, prefix: str, problem: str):
    with pytest.raises(UserError) as error:
        frozen_network(model, "fc" if model is OURS else "head", prefix)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_network_with_nothing_to_train_is_refused():
    with pytest.raises(UserError, match=r"^model.freeze=\[conv1,.*,fc\] leaves nothing to train in model.name=resnext"):
        frozen_network(OURS, "conv1", "bn1", "layer1", "layer2", "fc")


def test_the_frozen_parameters_are_counted():
    network = frozen_network(OURS, "fc")
    total = sum(parameter.numel() for parameter in network.parameters())
    assert describe_frozen(network, ["fc"]) == f"{network.fc.weight.numel() + 3:,} of {total:,} parameters: fc"
    assert describe_frozen(network, []) is None
