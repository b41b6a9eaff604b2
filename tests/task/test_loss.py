"""Losses compared with timm's and torch's, and the distillation loss in closed form."""

import math

import pytest
import torch
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import nn
from torch.nn import functional as F

from resnext.config.recipe import LossConfig
from resnext.errors import UserError
from resnext.task.classification import ClassificationTask
from resnext.task.loss import build_loss, distillation_loss
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
