"""The metrics of an evaluation, compared with torch, torchmetrics, an optimizer and closed forms."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

from resnext.inference.evaluation_metrics import (
    Interval,
    best_temperature,
    class_hits,
    compute_metrics,
    count_confusions,
)
from resnext.inference.outputs import UNKNOWN, Outputs

IMAGES, CLASSES = 500, 12


@pytest.fixture
def logits() -> torch.Tensor:
    return 4 * torch.randn(IMAGES, CLASSES, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets(logits: torch.Tensor) -> torch.Tensor:
    """Drawn from the softmax of half the logits: the right temperature is about 2."""
    return (logits / 2).softmax(1).multinomial(1, generator=torch.Generator().manual_seed(1)).squeeze(1)


def test_accuracies_and_loss_are_those_of_torch(logits: torch.Tensor, targets: torch.Tensor):
    found = compute_metrics(Outputs.of(logits, targets), targets.numpy()[:, None])
    order = logits.argsort(dim=1, descending=True)
    assert found.images == IMAGES
    assert found.top1.value == (order[:, 0] == targets).double().mean().item()
    assert found.top5.value == (order[:, :5] == targets[:, None]).any(1).double().mean().item()
    assert found.loss == pytest.approx(functional.cross_entropy(logits.double(), targets).item(), rel=1e-6)


def test_the_calibration_error_is_that_of_torchmetrics(logits: torch.Tensor, targets: torch.Tensor):
    found = compute_metrics(Outputs.of(logits, targets), targets.numpy()[:, None]).calibration_error
    assert found == pytest.approx(multiclass_calibration_error(logits, targets, CLASSES, n_bins=15).item(), rel=1e-5)


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
def test_the_temperature_is_that_of_an_optimizer(logits: torch.Tensor, targets: torch.Tensor, factor: float):
    logits = factor * logits
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scale], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = functional.cross_entropy(scale * logits.double(), targets)
        found.backward()
        return found

    optimizer.step(loss)
    assert best_temperature(Outputs.of(logits, targets).curve) == pytest.approx(1 / scale.item(), rel=1e-3)


def test_a_network_without_a_mistake_has_no_best_temperature(logits: torch.Tensor):
    """The loss falls with each larger scale of the logits."""
    assert best_temperature(Outputs.of(10 * logits, logits.argmax(1)).curve) is None


@pytest.mark.parametrize(("hits", "images"), [(0, 20), (1, 10), (7, 10), (360, 500), (49_999, 50_000), (20, 20)])
def test_the_interval_is_wilsons_as_scipy_computes_it(hits: int, images: int):
    expected = binomtest(hits, images).proportion_ci(method="wilson")
    assert Interval.of(hits, images) == pytest.approx((hits / images, expected.low, expected.high), abs=1e-12)


def test_each_class_is_counted(logits: torch.Tensor, targets: torch.Tensor):
    outputs = Outputs.of(logits, targets)
    expected = multiclass_confusion_matrix(logits, targets, CLASSES)
    found = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)
    for target, answer, images in count_confusions(outputs, targets.numpy()):
        found[target, answer] = images
    assert torch.equal(found, expected)
    images, hits = class_hits(outputs, targets.numpy(), CLASSES)
    assert images.tolist() == expected.sum(1).tolist()
    assert hits.tolist() == expected.diagonal().tolist()


def test_only_allowed_classes_are_predicted(logits: torch.Tensor):
    allowed = torch.tensor([1, 4, 5, 9])
    targets = allowed[torch.arange(IMAGES) % 4]
    found = Outputs.of(logits, targets, allowed)
    alone = Outputs.of(logits[:, allowed], torch.arange(IMAGES) % 4)
    assert found.labels.tolist() == allowed.numpy()[alone.labels].tolist()
    for one, other in zip(found[1:], alone[1:], strict=True):
        assert np.array_equal(one, other)


def test_an_image_may_have_several_correct_classes_or_none(logits: torch.Tensor):
    accepted = np.full((IMAGES, 2), UNKNOWN)
    accepted[: IMAGES // 2, 1] = logits[: IMAGES // 2].argmin(1)
    accepted[: IMAGES // 4, 0] = logits[: IMAGES // 4].argmax(1)
    found = compute_metrics(Outputs.of(logits, torch.full((IMAGES,), UNKNOWN)), accepted)
    assert found.images == IMAGES // 2
    assert (found.top1.value, found.loss, found.temperature) == (0.5, None, None)


def test_joined_batches_are_the_whole(logits: torch.Tensor, targets: torch.Tensor):
    whole = Outputs.of(logits, targets)
    joined = Outputs.join([Outputs.of(*each) for each in zip(logits.split(64), targets.split(64), strict=True)])
    for one, other in zip(whole[:3], joined[:3], strict=True):
        assert np.array_equal(one, other)
    assert np.allclose(whole.curve, joined.curve, rtol=1e-12)


def test_fewer_than_five_classes_are_all_in_the_top_5():
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    outputs = Outputs.of(logits, torch.tensor([0, 1, 2, 0, 1, 2, 0]))
    assert outputs.labels.shape == (7, 3)
    assert compute_metrics(outputs, np.array([[0], [1], [2], [0], [1], [2], [0]])).top5.value == 1
