"""Every recipe file against the numbers that were published, and against what timm and torchvision make of them."""

import functools
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from torchvision import transforms
from torchvision.ops._utils import split_normalization_params
from torchvision.transforms import v2

from conftest import small_config
from resnext.cli.composition import CONFIGS
from resnext.config_recipe import AugmentationConfig, MixingConfig, RecipeConfig, TeacherConfig
from resnext.data.augment import build_eval_transform, build_train_transform
from resnext.models.resnext import ResNeXt
from resnext.task.loss import classification_loss
from resnext.task.mixing import Box, Mix, draw_mix, mix_images, mix_targets
from resnext.task.optimization import build_optimizer, lr_at, set_lr

RECIPES = sorted(path.stem for path in (CONFIGS / "recipe").glob("*.yaml"))
STEPS = 8  # an epoch, unless said


def cosine(part: float, high: float, low: float = 0.0) -> float:
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * part))


@dataclass(frozen=True)
class Published:
    """The numbers of RECIPES' table. `rates` by epoch: at the first step, the warm-up's end, the middle, the last."""

    optimizer: str
    lr: float
    batch: int
    epochs: int
    decay: float
    rates: dict[float, float]
    momentum: float | None = 0.9
    nesterov: bool = False
    undecayed: str = ""
    loss: str = "ce"
    smoothing: float = 0.0
    transforms: list[str] = field(default_factory=lambda: ["RandomResizedCrop", "flip"])
    mixing: tuple[float, float] = (0.0, 0.0)
    depth: float = 0.0
    sizes: tuple[int, int, int] = (224, 256, 224)  # training, and the resize and crop of the test
    test_interpolation: str = "bilinear"


STEPPED = {0: 0.1, 29: 0.1, 50: 0.01, 99: 1e-4}


def _strikes_back(letter: str, **changes: object) -> Published:
    lr, epochs = {"a1": (5e-3, 600), "a2": (5e-3, 300), "a3": (8e-3, 100)}[letter]
    last = epochs - 1
    rates = {0: 1e-4, 5: cosine(5 / epochs, lr, 1e-6), epochs / 2: (lr + 1e-6) / 2}
    rates[last] = cosine(last / epochs, lr, 1e-6)
    common: dict = {
        "optimizer": "Lamb", "lr": lr, "batch": 2048, "epochs": epochs, "decay": 0.02, "rates": rates, "loss": "bce",
        "momentum": None, "undecayed": "norms and biases", "mixing": (0.1, 1.0), "sizes": (224, 235, 224),
        "transforms": ["RandomResizedCrop", "flip", "RandAugment"], "depth": 0.05,
        "test_interpolation": "bicubic",
    }  # fmt: skip
    return Published(**common | changes)


PUBLISHED = {
    "paper": Published(
        "SGD", 0.1, 256, 100, 1e-4, STEPPED, test_interpolation="bicubic",
        transforms=["RandomResizedCrop", "flip", "ColorJitter", "lighting"],
    ),
    "v1": Published("SGD", 0.1, 256, 100, 1e-4, STEPPED),
    "v2": Published(
        "SGD", 0.5, 1024, 600, 2e-5,
        {0: 0.005, 5: 0.5, 302.5: cosine(297 / 595, 0.5), 599: cosine(594 / 595, 0.5)},
        undecayed="norms", smoothing=0.1, mixing=(0.2, 1.0), sizes=(176, 232, 224),
        transforms=["RandomResizedCrop", "flip", "TrivialAugmentWide"],
    ),
    "ra": Published(
        "SGD", 0.6, 1536, 240, 1e-4,
        {0: 1e-4, 5: cosine(5 / 240, 0.6, 1e-5), 120: 0.300005, 239: cosine(239 / 240, 0.6, 1e-5)},
        nesterov=True, undecayed="norms and biases", test_interpolation="bicubic",
        transforms=["RandomResizedCrop", "flip", "RandAugment"],
    ),
    "a1": _strikes_back("a1", decay=0.01, smoothing=0.1, mixing=(0.2, 1.0)),
    "a2": _strikes_back("a2"),
    "a3": _strikes_back("a3", depth=0.0, sizes=(160, 235, 224)),
    "nvidia": Published(
        "SGD", 1.024, 1024, 90, 1 / 16384,
        {0: 0.0, 4: 0.512, 8: 1.024, 49: 0.512, 89: cosine(81 / 82, 1.024)},
        momentum=0.875, undecayed="norms", smoothing=0.1,
    ),
    "cifar_paper": Published(
        "SGD", 0.1, 128, 300, 5e-4, {0: 0.1, 149: 0.1, 150: 0.01, 225: 1e-3, 299: 1e-3},
        transforms=["PadAndCrop", "flip"], sizes=(32, 32, 32),
    ),
    "finetune": Published(
        "SGD", 0.01, 32, 20, 1e-4, {0: 0.0, 1: 0.01, 10.5: 0.005, 19: cosine(18 / 19, 0.01)},
        nesterov=True, undecayed="norms and biases", smoothing=0.1, sizes=(224, 235, 224),
    ),
    "scratch": Published(
        "AdamW", 1e-3, 32, 100, 0.05, {0: 0.0, 5: 1e-3, 52.5: 5e-4, 99: cosine(94 / 95, 1e-3)},
        momentum=None, undecayed="norms and biases", smoothing=0.1, sizes=(224, 235, 224),
        transforms=["RandomResizedCrop", "flip", "RandAugment"],
    ),
    "small": Published(
        "SGD", 0.1, 64, 30, 5e-4, {0: 0.0, 2: 0.1, 16: 0.05, 29: cosine(27 / 28, 0.1)},
        nesterov=True, smoothing=0.1, transforms=["RandomResizedCrop"], sizes=(8, 8, 8),
    ),
}  # fmt: skip

AUGMENTATIONS = {
    "paper": AugmentationConfig(interpolation="bicubic", color_jitter=0.4, lighting=0.1),
    "v1": AugmentationConfig(),
    "v2": AugmentationConfig(auto_augment="ta_wide", erasing=0.1, erasing_mode="const"),
    "ra": AugmentationConfig(
        interpolation="random", auto_augment="rand-m7-mstd0.5-inc1", erasing=0.4, erasing_mode="pixel", erasing_count=3
    ),
    "a1": AugmentationConfig(interpolation="random", auto_augment="rand-m7-mstd0.5", repeats=3),
    "a2": AugmentationConfig(interpolation="random", auto_augment="rand-m7-mstd0.5", repeats=3),
    "a3": AugmentationConfig(interpolation="random", auto_augment="rand-m6-mstd0.5"),
    "nvidia": AugmentationConfig(),
    "cifar_paper": AugmentationConfig(pad=4),
    "finetune": AugmentationConfig(scale=(0.35, 1.0)),
    "scratch": AugmentationConfig(scale=(0.25, 1.0), auto_augment="rand-m6-mstd0.5-inc1"),
    "small": AugmentationConfig(scale=(0.6, 1.0), ratio=(0.8, 1.25), hflip=0.0),
}


def load(name: str) -> RecipeConfig:
    tree = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"recipe/{name}.yaml"))
    return small_config("/x", recipe=tree).recipe


def small_network() -> ResNeXt:
    torch.manual_seed(0)
    return ResNeXt([1, 1], 2, 16, num_classes=5, width=8, stem="cifar")


def test_the_schemas_crop_is_the_published_one():
    """A twelfth to all of the area, 3:4 to 4:3, half of them flipped: Szegedy et al. 2015, as everybody has it."""
    crop = AugmentationConfig()
    assert (crop.scale, crop.ratio, crop.hflip, crop.interpolation) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5, "bilinear")
    assert (MixingConfig().prob, MixingConfig().switch_prob) == (1.0, 0.5)


def test_every_recipe_is_here():
    assert sorted(PUBLISHED) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_its_header_tells_source_accuracy_epochs_and_that_it_was_not_run(name: str):
    lines = (CONFIGS / f"recipe/{name}.yaml").read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert lines[0].startswith("# Source: ")
    assert "\n# Published: " in header
    assert f"\n# {PUBLISHED[name].epochs} epochs" in header
    assert ("Not run at that scale here" in header) == (" % " in header)


@pytest.mark.parametrize("name", RECIPES)
def test_batch_epochs_and_learning_rate(name: str):
    recipe, published = load(name), PUBLISHED[name]
    assert (recipe.batch_size, recipe.lr_batch_size, recipe.epochs) == (
        published.batch,
        published.batch,
        published.epochs,
    )
    assert recipe.lr == published.lr
    for epoch, rate in published.rates.items():
        step = round(epoch * STEPS)
        assert lr_at(step, recipe, STEPS) == pytest.approx(rate, rel=1e-9, abs=1e-12), epoch


@pytest.mark.parametrize("name", RECIPES)
def test_optimizer_and_decay_groups(name: str):
    recipe, published = load(name), PUBLISHED[name]
    network = small_network()
    optimizer = build_optimizer(network, recipe.optimizer)
    assert type(optimizer).__name__ == published.optimizer
    assert optimizer.defaults.get("momentum") == published.momentum
    assert optimizer.defaults.get("nesterov", False) == published.nesterov
    decays = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    for parameter_name, parameter in network.named_parameters():
        is_norm = "bn" in parameter_name or "downsample.1" in parameter_name
        spared = (is_norm and "norms" in published.undecayed) or (
            parameter_name.endswith("bias") and "biases" in published.undecayed
        )
        assert decays[id(parameter)] == pytest.approx(0.0 if spared else published.decay), parameter_name


@pytest.mark.parametrize("name", RECIPES)
def test_loss_of_fixed_logits(name: str):
    """By hand: shares with smoothing, and for BCE 1 where they are above 0.2."""
    recipe, published = load(name), PUBLISHED[name]
    logits = np.array([[2.0, -1.0, 0.5, 0.0], [0.0, 1.0, -2.0, 3.0]])
    shares = np.array([[0.7, 0.3, 0, 0], [0.3, 0.7, 0, 0]])
    smooth = shares * (1 - published.smoothing) + published.smoothing / 4
    if published.loss == "ce":
        expected = -(smooth * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1).mean()
    else:
        there = (smooth > 0.2).astype(float)
        chances = 1 / (1 + np.exp(-logits))
        expected = -(there * np.log(chances) + (1 - there) * np.log(1 - chances)).mean()
    loss = classification_loss(torch.tensor(logits), torch.tensor(shares).float(), recipe.loss)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_augmentation_by_name_and_order(name: str):
    recipe, published = load(name), PUBLISHED[name]
    transform = build_train_transform(recipe, small_config("/x").data, recipe.image_size)
    assert isinstance(transform, transforms.Compose)
    assert [transform_name(each) for each in transform.transforms] == published.transforms


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_else_is_asked_for(name: str):
    """Augmentation, mixing and the rest, whole: what the source does not name is as the schema has it."""
    recipe, published = load(name), PUBLISHED[name]
    mixup, cutmix = published.mixing
    assert recipe.augmentation == AUGMENTATIONS[name]
    assert recipe.mixing == MixingConfig(mixup_alpha=mixup, cutmix_alpha=cutmix)
    assert recipe.teacher == TeacherConfig()
    assert recipe.loss.target_threshold == (0.2 if published.loss == "bce" else None)
    assert recipe.loss.label_smoothing == published.smoothing
    optimizer = recipe.optimizer
    assert (optimizer.betas, optimizer.eps, optimizer.layer_decay, optimizer.clip_grad_norm) == (None,) * 4
    assert (recipe.max_steps, recipe.lr_scaling, recipe.image_size_schedule) == (None, "none", ())
    assert recipe.drop_path_rate == published.depth


@pytest.mark.parametrize("name", RECIPES)
def test_train_and_test_crops(name: str):
    recipe, published = load(name), PUBLISHED[name]
    train, resize, crop = published.sizes
    photo = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    transform = build_train_transform(recipe, small_config("/x").data, recipe.train_image_size(0))
    assert transform(photo).shape == (train, train, 3)
    mode = transforms.InterpolationMode(published.test_interpolation)
    theirs = transforms.Compose([transforms.Resize(resize, mode), transforms.CenterCrop(crop)])
    ours = build_eval_transform(recipe.evaluation, recipe.eval_image_size)(photo)
    assert np.array_equal(ours, np.asarray(theirs(transforms.ToPILImage()(photo))))


def test_the_average_of_v2_is_torchvisions():
    """Its train.py: adjust = batch · steps / epochs, alpha = (1 - decay) · adjust."""
    recipe = load("v2")
    assert (recipe.ema.decay, recipe.ema.every_steps, recipe.ema.warmup_epochs) == (0.99998, 32, 5)
    assert recipe.ema_decay == pytest.approx(1 - (1 - 0.99998) * 1024 * 32 / 600)
    assert all(load(name).ema_decay is None for name in RECIPES if name != "v2")


@pytest.mark.parametrize("name", ["a1", "a2", "a3"])
def test_schedule_is_timms(name: str):
    recipe = load(name)
    theirs, _ = create_scheduler_v2(
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], recipe.optimizer.lr),
        sched="cosine", num_epochs=recipe.epochs, warmup_epochs=5, warmup_lr=1e-4, min_lr=1e-6,
    )  # fmt: skip
    assert theirs is not None
    for epoch in range(recipe.epochs):
        theirs.step(epoch)
        for step in (epoch * STEPS, epoch * STEPS + STEPS - 1):
            assert lr_at(step, recipe, STEPS) == pytest.approx(theirs.optimizer.param_groups[0]["lr"])


def test_schedule_of_v2_is_torchvisions():
    recipe = load("v2")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.5)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=5)
    main = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=595, eta_min=0.0)
    theirs = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, main], [5])
    for epoch in range(600):
        for step in (epoch * STEPS, epoch * STEPS + STEPS - 1):
            assert lr_at(step, recipe, STEPS) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("name", ["a1", "a2", "a3", "v2"])
def test_steps_of_the_optimizer_are_timms_and_torchvisions(name: str):
    recipe = load(name)
    ours, theirs = small_network(), small_network()
    optimizer = build_optimizer(ours, recipe.optimizer)
    if name == "v2":
        norms, others = split_normalization_params(theirs)
        groups = [{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": 2e-5}]
        reference = torch.optim.SGD(groups, lr=0.5, momentum=0.9, weight_decay=2e-5)
    else:
        reference = create_optimizer_v2(theirs, "lamb", lr=recipe.lr, weight_decay=recipe.optimizer.weight_decay)
    for step in range(3):
        lr = lr_at(step * 5 * STEPS, recipe, STEPS)
        set_lr(optimizer, lr)
        for group in reference.param_groups:
            group["lr"] = lr
        for network, each in ((ours, optimizer), (theirs, reference)):
            each.zero_grad()
            network(torch.ones(2, 3, 8, 8) * torch.tensor([1.0, 2.0])[:, None, None, None]).square().mean().backward()
            each.step()
    for name_, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name_]), name_


@pytest.mark.parametrize("name", ["a1", "a2", "a3"])
@pytest.mark.parametrize("seed", range(6))
def test_mixing_and_loss_are_timms_for_the_same_draws(name: str, seed: int):
    recipe = load(name)
    torch.manual_seed(seed)
    images, targets, logits = torch.randn(6, 3, 20, 30), torch.randint(7, (6,)), torch.randn(6, 7)
    theirs = Mixup(
        recipe.mixing.mixup_alpha, recipe.mixing.cutmix_alpha, label_smoothing=PUBLISHED[name].smoothing, num_classes=7
    )
    np.random.seed(seed)
    their_images, their_targets = theirs(images.clone(), targets)
    mix = draw_mix(recipe.mixing, 20, 30, seed)
    shares = mix_targets(targets, mix, 7)
    assert torch.equal(mix_images(images.clone(), mix), their_images)
    expected = BinaryCrossEntropy(target_threshold=0.2)(logits, their_targets)
    assert float(classification_loss(logits, shares, recipe.loss)) == pytest.approx(float(expected), rel=1e-6)


def test_mixing_and_loss_of_v2_are_torchvisions(monkeypatch: pytest.MonkeyPatch):
    """Of two images, whose reverse is torchvision's roll by one, for its own draws."""
    torch.manual_seed(0)
    images, targets, logits = torch.randn(2, 3, 20, 30), torch.tensor([1, 3]), torch.randn(2, 5)
    share, box = 0.3, Box(2, 17, 4, 25)
    parameters = {"lam": share}, {"box": (4, 2, 25, 17), "lam_adjusted": 1 - 15 * 21 / 600}
    for kind, drawn, mix in (
        (v2.MixUp, parameters[0], Mix(share)),
        (v2.CutMix, parameters[1], Mix(1 - 15 * 21 / 600, box)),
    ):
        monkeypatch.setattr(kind, "make_params", lambda _self, _inputs, drawn=drawn: drawn)
        their_images, their_targets = kind(num_classes=5)(images, targets)
        torch.testing.assert_close(mix_images(images.clone(), mix), their_images)
        shares = mix_targets(targets, mix, 5)
        torch.testing.assert_close(shares, their_targets)
        expected = nn.CrossEntropyLoss(label_smoothing=0.1)(logits, their_targets)
        assert float(classification_loss(logits, shares, load("v2").loss)) == pytest.approx(float(expected))


def transform_name(transform: object) -> str:
    """Of a step of the pipeline: what it wraps, down to the class or function."""
    while isinstance(transform, functools.partial):
        transform = transform.keywords.get("transform", transform.func)
    name = getattr(transform, "__name__", type(transform).__name__)
    return {"_flip": "flip", "add_lighting": "lighting"}.get(name, name)
