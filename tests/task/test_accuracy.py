"""Accuracy scores compared with torchmetrics' own."""

import pytest
import torch
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from resnext.task.accuracy import EvaluationScores


def test_scores_equal_torchmetrics_over_uneven_batches():
    torch.manual_seed(0)
    logits, targets = torch.randn(103, 20), torch.randint(20, (103,))
    scores = EvaluationScores()
    top1, top5 = (MulticlassAccuracy(20, top_k=k, average="micro") for k in (1, 5))
    for part, labels in zip(logits.split(16), targets.split(16), strict=True):
        scores.update(part, labels)
        top1.update(part, labels)
        top5.update(part, labels)
    computed = scores.compute()
    assert computed.top1 == pytest.approx(top1.compute().item(), abs=1e-7)
    assert computed.top5 == pytest.approx(top5.compute().item(), abs=1e-7)
    assert computed.loss == pytest.approx(functional.cross_entropy(logits, targets).item(), rel=1e-6)
    assert computed.images == 103


def test_top5_works_with_fewer_than_five_classes():
    scores = EvaluationScores()
    scores.update(torch.tensor([[1.0, 2.0, 0.0], [5.0, 0.0, 0.0]]), torch.tensor([1, 2]))
    assert scores.compute()[1:] == (0.5, 1.0, 2)


def test_summed_states_of_all_ranks_give_the_scores_of_all_images():
    """torchmetrics combines the ranks in this way: it adds their states."""
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 7), torch.randint(7, (50,))
    whole, first, second = EvaluationScores(), EvaluationScores(), EvaluationScores()
    whole.update(logits, targets)
    first.update(logits[::2], targets[::2])
    second.update(logits[1::2], targets[1::2])
    for name in ("correct1", "correct5", "images", "loss"):
        setattr(first, name, getattr(first, name) + getattr(second, name))
    assert first.compute()[1:] == whole.compute()[1:]
    assert first.compute().loss == pytest.approx(whole.compute().loss, rel=1e-6)
