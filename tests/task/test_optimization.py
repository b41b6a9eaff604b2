"""Learning rates compared with closed forms and torch's and timm's schedulers; parameter groups by hand."""

import itertools
import math
from collections.abc import Iterator

import pytest
import timm
import timm.layers
import timm.optim
import timm.scheduler
import torch
from torch import nn

from resnext.config.recipe import OptimizerConfig
from resnext.config.schema import ModelConfig
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.task.optimization import build_optimizer, lr_at, set_lr, total_steps
from support.small_run import small_config

STEPS = 50  # per epoch


def recipe(**changes):
    epochs = changes.pop("epochs", 100)
    return small_config("/x", recipe__epochs=epochs, recipe__optimizer__lr=0.1, **changes).recipe


def test_the_step_schedule_equals_torchs_step_lr():
    ours = recipe(recipe__schedule={"name": "step", "decay_epochs": 30})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, 30)
    for epoch in range(100):
        for step in (0, STEPS - 1):
            assert lr_at(epoch * STEPS + step, ours, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_cosine_with_warmup_equals_torchs_schedulers():
    ours = recipe(recipe__schedule={"name": "cosine", "warmup_epochs": 5, "warmup_lr": 0.001, "min_lr": 1e-6})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, 5 * STEPS)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 95 * STEPS, eta_min=1e-6)
    theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [5 * STEPS])
    for step in range(100 * STEPS):
        assert lr_at(step, ours, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        theirs.step()


def test_schedules_equal_their_closed_forms():
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
def test_weight_decay_of_norms_and_biases_can_be_turned_off(decayed: bool):
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    config = OptimizerConfig(
        name="momentum", lr=0.1, weight_decay=1e-4, weight_decay_on="all" if decayed else "all_but_norms_and_biases"
    )
    groups = build_optimizer(network, config).param_groups
    by_decay = {group["weight_decay"]: [parameter.ndim for parameter in group["params"]] for group in groups}
    if decayed:
        assert by_decay == {1e-4: [2, 1, 1, 1]}
    else:
        assert by_decay == {1e-4: [2], 0.0: [1, 1, 1]}


@pytest.mark.parametrize(("name", "nesterov"), [("momentum", False), ("sgd", True)])
def test_timms_two_names_of_sgd_equal_torchs_sgd(name: str, nesterov: bool):
    """Compares one step with torch's own SGD for the same numbers."""
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


def test_an_optimizer_that_cannot_be_built_here_is_refused():
    with pytest.raises(UserError, match=r"recipe.optimizer.name=fusedsgd cannot be built here: "):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(name="fusedsgd", lr=0.1))


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon", "rmsproptf", "lars"])
def test_timms_optimizers_take_a_step(name: str):
    network = nn.Linear(3, 2)
    optimizer = build_optimizer(network, OptimizerConfig(name=name, lr=0.1))
    before = network.weight.clone()
    network(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(network.weight, before)


def test_an_unknown_optimizer_is_refused_with_a_suggestion():
    with pytest.raises(
        UserError, match=r"recipe.optimizer.name=adamww is not an optimizer of timm; did you mean adamw\?"
    ):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(name="adamww", lr=0.1))


def test_layer_decay_equals_timms_for_the_same_network():
    ours = build_model(ModelConfig(name="resnext50_32x4d"), 10)
    theirs = timm.create_model("resnext50_32x4d", num_classes=10)
    config = OptimizerConfig(
        name="sgd", lr=0.1, weight_decay=0.01, layer_decay=0.7, weight_decay_on="all_but_norms_and_biases"
    )
    expected = timm.optim.param_groups_layer_decay(theirs, weight_decay=0.01, layer_decay=0.7)
    for our_group, their_group in zip(build_optimizer(ours, config).param_groups, expected, strict=True):
        assert our_group["lr_scale"] == their_group["lr_scale"]
        assert our_group["weight_decay"] == their_group["weight_decay"]
        assert [each.shape for each in our_group["params"]] == [each.shape for each in their_group["params"]]


def test_layer_decay_scales_the_learning_rate_at_every_step():
    network = build_model(ModelConfig(name="resnext29_8x64d"), 10)
    optimizer = build_optimizer(network, OptimizerConfig(name="sgd", lr=0.1, layer_decay=0.5))
    set_lr(optimizer, 0.02)
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert rates[id(network.get_parameter("fc.weight"))] == 0.02
    assert rates[id(network.get_parameter("layer3.2.conv1.weight"))] == pytest.approx(0.01)
    assert rates[id(network.get_parameter("conv1.weight"))] == pytest.approx(0.02 * 0.5**10)


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_milestones_equal_torchs(every: str):
    """timm lowers the learning rate one unit earlier: one step, or a whole epoch if it steps by epoch."""
    ours = recipe(recipe__schedule={"name": "multistep", "every": every, "milestones": [5, 9], "decay_rate": 0.5})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5 * STEPS, 9 * STEPS], 0.5)
    for step in range(12 * STEPS):
        assert lr_at(step, ours, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        theirs.step()


def timms_rates(name: str, every: str, words: dict) -> tuple[Iterator[float], int]:
    """The learning rate of each step by timm's scheduler (endless), and the number of epochs that timm counts."""
    scheduler, epochs = timm.scheduler.create_scheduler_v2(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1),
        name,
        num_epochs=20,
        min_lr=1e-4,
        step_on_epochs=every == "epoch",
        updates_per_epoch=STEPS,
        **words,
    )
    assert scheduler is not None

    def rates() -> Iterator[float]:
        for step in itertools.count():
            scheduler.step_update(step) if every == "step" else scheduler.step(step // STEPS)
            yield scheduler.optimizer.param_groups[0]["lr"]

    return rates(), epochs


@pytest.mark.parametrize("name", ["step", "cosine", "tanh", "poly", "wsd", "rsqrt", "constant"])
@pytest.mark.parametrize("every", ["step", "epoch"])
def test_timms_schedules_equal_timms_own_training(name: str, every: str):
    """Compares all steps with the schedule that timm's own training builds from the same options."""
    words: dict = {"warmup_epochs": 3, "warmup_lr": 0.001, "warmup_prefix": False, "decay_epochs": 7, "decay_rate": 0.5}
    ours = recipe(recipe__schedule={"name": name, "every": every, "min_lr": 1e-4, **words}, epochs=20)
    theirs, _ = timms_rates(name, every, words)
    for step, expected in zip(range(20 * STEPS), theirs, strict=False):
        assert lr_at(step, ours, STEPS) == pytest.approx(expected, rel=1e-9), step


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("every", ["step", "epoch"])
@pytest.mark.parametrize("name", ["cosine", "tanh", "poly"])
def test_a_cool_down_equals_timms(name: str, every: str, prefix: bool):
    """timm adds the cool-down, and a warm-up that is a prefix, to its epochs. Our number of epochs includes both."""
    words: dict = {"warmup_epochs": 3, "warmup_lr": 0.001, "warmup_prefix": prefix, "cooldown_epochs": 4}
    theirs, epochs = timms_rates(name, every, words)
    assert epochs == 20 + (3 if prefix else 0) + 4
    ours = recipe(recipe__schedule={"name": name, "every": every, "min_lr": 1e-4, **words}, epochs=epochs)
    for step, expected in zip(range(epochs * STEPS), theirs, strict=False):
        assert lr_at(step, ours, STEPS) == pytest.approx(expected, rel=1e-9), step
        assert (lr_at(step, ours, STEPS) == 1e-4) == (step >= (epochs - 4) * STEPS), step


def test_max_steps_shortens_the_cool_down_first():
    schedule = {"name": "cosine", "min_lr": 1e-3, "cooldown_epochs": 10}
    for max_steps in (100 * STEPS, 95 * STEPS, 90 * STEPS):
        shorter = recipe(recipe__schedule=schedule, recipe__max_steps=max_steps)
        assert lr_at(45 * STEPS, shorter, STEPS) == pytest.approx(1e-3 + 0.099 / 2)  # half of 90 epochs
        assert lr_at(90 * STEPS, shorter, STEPS) == 1e-3
    assert lr_at(40 * STEPS, recipe(recipe__schedule=schedule, recipe__max_steps=80 * STEPS), STEPS) == pytest.approx(
        1e-3 + 0.099 / 2
    )


def test_max_steps_shortens_the_cosine_after_a_hold():
    held = recipe(recipe__schedule={"name": "cosine", "hold_epochs": 10}, recipe__max_steps=50 * STEPS)
    assert lr_at(10 * STEPS, held, STEPS) == 0.1
    assert lr_at(30 * STEPS, held, STEPS) == pytest.approx(0.05)  # half of the remaining 40 epochs


@pytest.mark.parametrize("name", ["step", "multistep", "constant", "wsd", "rsqrt"])
def test_a_cool_down_needs_a_schedule_that_ends(name: str):
    milestones = {"milestones": [5]} if name == "multistep" else {}
    with pytest.raises(
        UserError,
        match=r"^recipe.schedule.cooldown_epochs=2 needs a schedule that ends at min_lr: "
        rf"set recipe.schedule.name to cosine, tanh or poly, not {name}$",
    ):
        recipe(recipe__schedule={"name": name, "cooldown_epochs": 2, **milestones})


@pytest.mark.parametrize(("warmup", "hold", "cooldown"), [(0, 0, 5), (0, 9, 0), (3, 0, 2), (2, 1, 2)])
def test_the_parts_of_a_schedule_must_fit_into_the_training(warmup: int, hold: int, cooldown: int):
    """They must leave at least one step for the decay. Only a warm-up may be longer, for a short trial of a recipe."""
    parts = {"warmup_epochs": warmup, "hold_epochs": hold, "cooldown_epochs": cooldown}
    with pytest.raises(
        UserError,
        match=rf"^recipe.schedule.warmup_epochs={warmup}, hold_epochs={hold} and cooldown_epochs={cooldown} must be "
        r"less than recipe.epochs=5 together: raise recipe.epochs or lower them$",
    ):
        recipe(recipe__schedule=parts, epochs=5)
    assert recipe(recipe__schedule=parts, epochs=warmup + hold + cooldown + 1)
    assert recipe(recipe__schedule={"warmup_epochs": 9}, epochs=5)


@pytest.mark.parametrize("every", ["step", "epoch"])
@pytest.mark.parametrize("cooldown", [0, 3])
def test_the_peak_learning_rate_is_held_after_the_warm_up(every: str, cooldown: int):
    """By hand: 4 epochs up from 0.02, 2 at 0.1, a cosine over the remaining epochs, and the cool-down."""
    words = {"warmup_epochs": 4, "warmup_lr": 0.02, "hold_epochs": 2, "cooldown_epochs": cooldown, "min_lr": 0.01}
    ours = recipe(recipe__schedule={"name": "cosine", "every": every, **words}, epochs=20)
    for step in range(20 * STEPS):
        epoch = step // STEPS if every == "epoch" else step / STEPS
        share = min(1.0, (epoch - 6) / (14 - cooldown))
        if epoch < 4:
            expected = 0.02 + 0.08 * epoch / 4
        elif epoch <= 6:
            expected = 0.1
        else:
            expected = 0.01 + 0.09 * (1 + math.cos(math.pi * share)) / 2
        assert lr_at(step, ours, STEPS) == pytest.approx(expected, rel=1e-9), step


def test_nvidias_schedule_equals_its_formula():
    """lr_cosine_policy in its image_classification/training.py: eight epochs of warm-up, then a cosine from epoch 8."""
    words = {"warmup_epochs": 7, "warmup_lr": 0.1 / 8, "hold_epochs": 1, "every": "epoch"}
    ours = recipe(recipe__schedule={"name": "cosine", **words}, epochs=90)
    for epoch in range(90):
        expected = 0.1 * (epoch + 1) / 8 if epoch < 8 else 0.1 * (1 + math.cos(math.pi * (epoch - 8) / 82)) / 2
        for step in (0, STEPS - 1):
            assert lr_at(epoch * STEPS + step, ours, STEPS) == pytest.approx(expected, rel=1e-9), epoch


@pytest.mark.parametrize("every", ["step", "epoch"])
@pytest.mark.parametrize("prefix", [True, False])
def test_a_hold_postpones_the_milestones(every: str, prefix: bool):
    """They come later by the length of the hold. If the warm-up is a prefix, they are counted from its end."""
    words = {"warmup_epochs": 2, "warmup_lr": 0.05, "warmup_prefix": prefix, "hold_epochs": 3, "milestones": [4, 8]}
    ours = recipe(recipe__schedule={"name": "multistep", "every": every, **words}, epochs=20)
    first, second = ((milestone + 3 + (2 if prefix else 0)) * STEPS for milestone in (4, 8))
    for step in range(2 * STEPS, 20 * STEPS):
        expected = 0.1 * 0.1 ** ((step >= first) + (step >= second))
        assert lr_at(step, ours, STEPS) == pytest.approx(expected, rel=1e-9), step


@pytest.mark.parametrize("name", ["cosine", "poly", "multistep", "step", "constant"])
@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("every", ["step", "epoch"])
def test_max_steps_may_end_a_training_during_the_hold(name: str, prefix: bool, every: str):
    milestones = {"milestones": [5]} if name == "multistep" else {}
    words = {"warmup_epochs": 0, "hold_epochs": 9, "warmup_prefix": prefix, "every": every}
    ours = recipe(recipe__schedule={"name": name, **words, **milestones}, epochs=20, recipe__max_steps=2 * STEPS)
    assert {lr_at(step, ours, STEPS) for step in range(2 * STEPS)} == {0.1}


@pytest.mark.parametrize(("scaling", "lr"), [("none", 0.1), ("linear", 0.4), ("sqrt", 0.2)])
def test_lr_scaling_scales_the_learning_rate_with_the_batch_size(scaling: str, lr: float):
    changed = recipe(recipe__batch_size=1024, recipe__lr_batch_size=256, recipe__lr_scaling=scaling)
    assert changed.lr == pytest.approx(lr)
    assert lr_at(0, changed, STEPS) == pytest.approx(lr)


def test_lr_scaling_needs_lr_batch_size():
    with pytest.raises(UserError, match=r"recipe.lr_scaling=linear needs recipe.lr_batch_size"):
        recipe(recipe__lr_scaling="linear")


def test_options_that_an_optimizer_does_not_have_are_refused():
    adam = build_optimizer(nn.Linear(1, 1), OptimizerConfig(name="adamw", lr=0.1, betas=(0.8, 0.95), eps=1e-4))
    assert (adam.defaults["betas"], adam.defaults["eps"]) == ((0.8, 0.95), 1e-4)
    with pytest.raises(UserError, match=r"recipe.optimizer.name=sgd does not use recipe.optimizer.betas"):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(name="sgd", lr=0.1, betas=(0.8, 0.95)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "adamw", "momentum": 0.9}, r"recipe.optimizer.name=adamw does not use recipe.optimizer.momentum"),
        ({"name": "adahessian"}, r"recipe.optimizer.name=adahessian needs second derivatives"),
    ],
)
def test_optimizers_that_would_ignore_a_setting_are_refused(changes: dict, message: str):
    with pytest.raises(UserError, match=message):
        build_optimizer(nn.Linear(1, 1), OptimizerConfig(lr=0.1, **changes))


def test_a_whole_schedule_is_scaled():
    schedule = {"warmup_epochs": 2, "warmup_lr": 0.01, "min_lr": 0.001, "every": "epoch"}
    changed = recipe(
        recipe__batch_size=1024, recipe__lr_batch_size=256, recipe__lr_scaling="linear", recipe__schedule=schedule
    )
    plain = recipe(recipe__schedule=schedule)
    for step in (0, STEPS, 50 * STEPS, 100 * STEPS - 1):
        assert lr_at(step, changed, STEPS) == pytest.approx(4 * lr_at(step, plain, STEPS))


@pytest.mark.parametrize("name", ["warmup_lr", "min_lr"])
def test_a_schedule_must_not_begin_or_end_above_the_learning_rate(name: str):
    with pytest.raises(UserError, match=rf"recipe.schedule.{name}=1 is more than recipe.optimizer.lr=0.1"):
        recipe(recipe__schedule={name: 1.0})


def test_weight_decay_can_exclude_only_norms():
    norms = (nn.LayerNorm(4), nn.BatchNorm1d(4), nn.GroupNorm(2, 4))
    network = nn.Sequential(nn.Linear(3, 4), *norms, timm.layers.RmsNorm(4))
    config = OptimizerConfig(name="momentum", lr=0.1, weight_decay=1e-4, weight_decay_on="all_but_norms")
    groups = build_optimizer(network, config).param_groups
    decays = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
    assert [decays[id(each)] for each in network.parameters()] == [1e-4] * 2 + [0.0] * 7


@pytest.mark.parametrize("name", ["resnext50_32x4d", "timm/resnet50"])
def test_nvidias_filter_excludes_norms_outside_shortcuts(name: str):
    """`"bn" in name` in its image_classification/optimizers.py; the norm of a shortcut is called downsample.1."""
    network = build_model(ModelConfig(name=name), 10)
    config = OptimizerConfig(
        name="momentum", lr=0.1, weight_decay=1e-4, weight_decay_on="all_but_norms_outside_shortcuts"
    )
    groups = build_optimizer(network, config).param_groups
    decays = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
    expected = {name: 0.0 if "bn" in name else 1e-4 for name, _ in network.named_parameters()}
    assert {name: decays[id(each)] for name, each in network.named_parameters()} == expected
    assert len([name for name, decay in expected.items() if not decay]) == 2 * 49
    assert expected["layer1.0.downsample.1.weight"] == 1e-4


def test_parameters_that_a_timm_network_exempts_have_no_weight_decay():
    network = timm.create_model("vit_tiny_patch16_224", num_classes=3)
    groups = build_optimizer(network, OptimizerConfig(name="adamw", lr=0.1, weight_decay=0.1)).param_groups
    exempt = {id(each) for group in groups if group["weight_decay"] == 0 for each in group["params"]}
    names = {name for name, each in network.named_parameters() if id(each) in exempt}
    assert names == {"pos_embed", "cls_token"}
