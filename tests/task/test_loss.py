"""Losses compared with timm's and torch's, and the distillation loss in closed form."""

import math

import numpy as np
import pytest
import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from resnext.config.recipe import LossConfig
from resnext.errors import UserError
from resnext.task.classification import ClassificationTask
from resnext.task.loss import Loss, build_loss, distillation_loss, find_class_weights
from support.small_run import small_config

torch.manual_seed(0)
LOGITS, LABELS = torch.randn(5, 7) * 3, torch.tensor([0, 6, 2, 2, 5])
SHARES = torch.rand(5, 7).softmax(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_labels_equals_timms(smoothing: float):
    loss = build_loss(LossConfig(label_smoothing=smoothing))(LOGITS, LABELS)
    assert torch.equal(loss, nn.CrossEntropyLoss(label_smoothing=smoothing)(LOGITS, LABELS))
    torch.testing.assert_close(loss, LabelSmoothingCrossEntropy(smoothing)(LOGITS, LABELS))


def test_cross_entropy_of_soft_targets_equals_timms():
    loss = build_loss(LossConfig())(LOGITS, SHARES)
    torch.testing.assert_close(loss, SoftTargetCrossEntropy()(LOGITS, SHARES))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
def test_binary_cross_entropy_of_labels_equals_timms(smoothing: float, threshold: float | None):
    config = LossConfig(name="binary_cross_entropy", label_smoothing=smoothing, target_threshold=threshold)
    expected = BinaryCrossEntropy(smoothing, target_threshold=threshold)(LOGITS, LABELS)
    torch.testing.assert_close(build_loss(config)(LOGITS, LABELS), expected)


@pytest.mark.parametrize("threshold", [None, 0.15])
def test_binary_cross_entropy_of_soft_targets_equals_timms(threshold: float | None):
    config = LossConfig(name="binary_cross_entropy", target_threshold=threshold)
    expected = BinaryCrossEntropy(0.0, target_threshold=threshold)(LOGITS, SHARES)
    torch.testing.assert_close(build_loss(config)(LOGITS, SHARES), expected)


def test_the_loss_of_half_precision_logits_is_computed_in_float32():
    recipe = small_config("/x").recipe
    task = ClassificationTask(nn.Identity(), recipe, seed=0, log_every_steps=1, loss=build_loss(recipe.loss))
    assert task._loss(LOGITS.bfloat16(), LABELS).dtype == torch.float32


def test_distillation_of_two_classes_equals_the_closed_form():
    """T² Σ p log(p / q); p and q are logistic functions of the halved differences of the logits."""
    student, teacher, temperature = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]), 2.0
    p, q = 1 / (1 + math.exp(-3 / 2)), 1 / (1 + math.exp(-1 / 2))
    expected = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(expected, rel=1e-6)
    assert float(distillation_loss(LOGITS, LOGITS, temperature)) == pytest.approx(0, abs=1e-6)


def test_distillation_has_the_gradients_of_soft_cross_entropy_at_temperature_one():
    ours, theirs = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    distillation_loss(ours, SHARES.log(), 1.0).backward()
    F.cross_entropy(theirs, SHARES).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_threshold_without_bce_is_refused():
    with pytest.raises(UserError, match=r"recipe.loss.target_threshold needs recipe.loss.name=binary_cross_entr"):
        small_config("/x", recipe__loss={"target_threshold": 0.2})


WEIGHTS = (0.5, 1.0, 2.0, 0.1, 1.5, 4.0, 1.0)


def loss_and_gradient(loss: Loss, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, targets)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("targets", [LABELS, SHARES], ids=["labels", "soft targets"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_class_weights_are_torchs_and_the_focal_loss_of_gamma_0_is_cross_entropy(
    name: str, weights: tuple | None, smoothing: float, targets: torch.Tensor
):
    gamma = 0.0 if name == "focal" else None
    config = LossConfig(name=name, gamma=gamma, class_weights=weights, label_smoothing=smoothing)
    weight = None if weights is None else torch.tensor(weights)
    theirs = nn.CrossEntropyLoss(weight, label_smoothing=smoothing)
    found = loss_and_gradient(build_loss(config, np.ones(7, dtype=int)), targets)
    expected = loss_and_gradient(theirs, targets)
    if name == "cross_entropy" or (smoothing == 0 and targets is LABELS):
        assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_focal_loss_of_two_classes_equals_torchvisions(gamma: float):
    """The softmax of two logits is the sigmoid of their difference."""
    logits, labels = LOGITS[:, :2].clone(), LABELS % 2
    ours = build_loss(LossConfig(name="focal", gamma=gamma))(logits, labels)
    theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(ours, theirs)


def test_gamma_is_2_by_default_and_class_weights_are_the_papers_alpha():
    """Equation 5 of Lin et al. 2017 for one image: -alpha (1 - p)² log p; the mean divides by the sum of the alphas."""
    p = LOGITS.softmax(1)[torch.arange(5), LABELS]
    alpha = torch.tensor(WEIGHTS)[LABELS]
    found = build_loss(LossConfig(name="focal", class_weights=WEIGHTS), np.ones(7, dtype=int))(LOGITS, LABELS)
    torch.testing.assert_close(found, (-alpha * (1 - p) ** 2 * p.log()).sum() / alpha.sum())


@pytest.mark.parametrize("targets", [torch.tensor([0]), torch.eye(3)[:1]], ids=["label", "soft target"])
def test_the_focal_loss_of_a_certain_network_has_a_finite_gradient(targets: torch.Tensor):
    logits = torch.tensor([[1000.0, 0.0, -1000.0]], requires_grad=True)
    value = build_loss(LossConfig(name="focal", gamma=0.5))(logits, targets)
    assert value == 0
    assert torch.equal(torch.autograd.grad(value, logits)[0], torch.zeros(1, 3))


def test_balanced_weights_are_scikit_learns():
    """n_samples / (n_classes · np.bincount(y)), for 8, 1 and 3 images: 12 / (3 · 8), 12 / (3 · 1), 12 / (3 · 3)."""
    found = find_class_weights(LossConfig(class_weights="balanced"), np.array([8, 1, 3]))
    np.testing.assert_allclose(found, [0.5, 4.0, 4 / 3])
    loss = build_loss(LossConfig(class_weights="balanced"), np.array([8, 1, 3]))
    labels = torch.tensor([0, 1, 1, 2, 0])
    expected = F.cross_entropy(LOGITS[:, :3], labels, torch.tensor([0.5, 4.0, 4 / 3]))
    assert torch.equal(loss(LOGITS[:, :3], labels), expected)
    assert not isinstance(loss, nn.Module) or not loss.state_dict()  # a checkpoint does not hold them


def test_class_weights_that_do_not_fit_the_data_are_refused():
    with pytest.raises(UserError, match=r"recipe.loss.class_weights has 2 weights, and the data has 3 classes: give"):
        build_loss(LossConfig(class_weights=(1.0, 2.0)), np.array([8, 1, 3]))
    with pytest.raises(UserError, match=r"class_weights=balanced: 1 class without training images; give a list"):
        build_loss(LossConfig(class_weights="balanced"), np.array([8, 0, 3]))


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        ({"gamma": 1.0}, "recipe.loss.gamma=1 needs recipe.loss.name=focal"),
        ({"name": "focal", "gamma": -1.0}, "recipe.loss.gamma=-1.0 is not allowed: it should be greater than or eq"),
        ({"class_weights": [1.0, 0.0]}, "recipe.loss.class_weights.* should be 'balanced' or greater than 0$"),
        ({"class_weights": []}, "recipe.loss.class_weights=.* is not allowed"),
        ({"class_weights": "balance"}, "recipe.loss.class_weights=balance is not allowed.*did you mean balanced"),
        (
            {"name": "binary_cross_entropy", "class_weights": "balanced"},
            "recipe.loss.class_weights needs recipe.loss.name=cross_entropy or focal, not binary_cross_entropy",
        ),
    ],
)
def test_options_that_do_not_fit_the_loss_are_refused(loss: dict, problem: str):
    with pytest.raises(UserError, match=problem):
        small_config("/x", recipe__loss=loss)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({}, "cross-entropy"),
        ({"name": "focal"}, "focal loss, gamma 2"),
        ({"name": "focal", "gamma": 0.5, "class_weights": [0.5, 4.0]}, "focal loss, gamma 0.5, class weights 0.5 to 4"),
        (
            {"label_smoothing": 0.1, "class_weights": "balanced"},
            "cross-entropy, smoothing 0.1, balanced class weights",
        ),
    ],
)
def test_a_loss_is_described_in_words(loss: dict, words: str):
    assert small_config("/x", recipe__loss=loss).recipe.loss.words == words
