"""The metrics by name equal formulas written out here, and torchmetrics' functions on the logits of one process."""

import csv
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional import classification as functional

from resnext.config.augmentation import MetricName
from resnext.errors import UserError
from resnext.run.directory import Run
from resnext.task.metrics import CLASSES, NamedMetrics
from resnext.training.fit import fit
from support.small_run import make_run, read_metrics, small_config, write_images

THEIRS = {
    "f1": functional.multiclass_f1_score,
    "precision": functional.multiclass_precision,
    "recall": functional.multiclass_recall,
    "specificity": functional.multiclass_specificity,
    "auroc": functional.multiclass_auroc,
    "average_precision": functional.multiclass_average_precision,
    "cohen_kappa": functional.multiclass_cohen_kappa,
    "matthews_corrcoef": functional.multiclass_matthews_corrcoef,
    "calibration_error": functional.multiclass_calibration_error,
}
NAMES = tuple(CLASSES)


def draw(images: int, classes: int) -> tuple[Tensor, Tensor]:
    """Logits that are right for about a half of the images, and the targets."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(classes, (images,), generator=generator)
    logits = torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), targets] += 1.0
    return logits, targets


def compute(logits: Tensor, targets: Tensor, names: tuple[str, ...] = NAMES) -> dict[str, float]:
    metrics = NamedMetrics(names, logits.shape[1])
    for start in range(0, len(logits), 7):  # in batches of unequal sizes
        metrics.update(logits[start : start + 7], targets[start : start + 7])
    return metrics.compute_floats()


def by_hand(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """From the definitions, for classes that all occur and are all predicted."""
    probabilities, target = logits.double().softmax(1).numpy(), targets.numpy()
    n, classes = probabilities.shape
    predicted = probabilities.argmax(1)
    table = np.zeros((classes, classes))
    np.add.at(table, (target, predicted), 1)
    right, true, said = np.diag(table), table.sum(1), table.sum(0)
    agreed, by_chance = right.sum() / n, (true * said).sum() / n**2
    bins = np.minimum((probabilities.max(1) * 15).astype(int), 14)
    gaps = [
        abs((predicted == target)[bins == each].mean() - probabilities.max(1)[bins == each].mean())
        * (bins == each).mean()
        for each in set(bins)
    ]
    areas, precisions = [], []
    for label in range(classes):
        ours, others = probabilities[target == label, label], probabilities[target != label, label]
        areas.append((ours[:, None] > others[None]).mean())  # the chance to rank an image of the class higher
        order = (target == label)[np.argsort(-probabilities[:, label])]
        precisions.append((order.cumsum() / np.arange(1, n + 1))[order].mean())
    return {
        "f1": (2 * right / (true + said)).mean(),
        "precision": (right / said).mean(),
        "recall": (right / true).mean(),
        "specificity": ((n - true - said + right) / (n - true)).mean(),
        "auroc": np.mean(areas),
        "average_precision": np.mean(precisions),
        "cohen_kappa": (agreed - by_chance) / (1 - by_chance),
        "matthews_corrcoef": (right.sum() * n - (true * said).sum())
        / ((n**2 - (said**2).sum()) * (n**2 - (true**2).sum())) ** 0.5,
        "calibration_error": sum(gaps),
    }


def test_each_metric_is_its_formula_and_torchmetrics_function():
    logits, targets = draw(200, 5)
    found, expected = compute(logits, targets), by_hand(logits, targets)
    assert list(found) == list(expected) == list(THEIRS)
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-6), name
        assert value == pytest.approx(float(THEIRS[name](logits.softmax(1), targets, num_classes=5)), abs=1e-7), name
        assert compute(logits, targets, (name,)) == {name: value}


def test_logits_between_0_and_1_are_not_taken_for_probabilities():
    """torchmetrics takes each batch with such logits for probabilities."""
    logits, targets = draw(70, 3)
    small = (logits - logits.min()) / (logits.max() - logits.min())
    expected = by_hand(small, targets)["calibration_error"]
    assert compute(small, targets)["calibration_error"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:No positive samples", "ignore:Average precision score")
def test_a_class_without_images_is_left_out_except_where_it_was_predicted():
    """As docs/recipes.md says. Class 3 has no image: first no image is predicted to be one, then one image is."""
    logits, targets = draw(100, 4)
    targets = targets % 3
    logits[:, 3] = -20 - logits[:, 0].abs()
    three, four = compute(logits[:, :3], targets), compute(logits, targets)
    for name in ("f1", "precision", "recall", "auroc", "average_precision", "cohen_kappa", "matthews_corrcoef"):
        assert four[name] == pytest.approx(three[name], abs=1e-6), name
    logits[0, 3] = 20
    classes = {0, 1, 2}
    recalls = [float((logits.argmax(1) == label)[targets == label].float().mean()) for label in classes]
    assert compute(logits, targets)["recall"] == pytest.approx(sum(recalls) / 4, abs=1e-6)


def test_every_name_of_the_configuration_has_a_metric():
    assert get_args(MetricName) == NAMES


def test_no_names_compute_nothing():
    assert compute(*draw(20, 3), names=()) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["f2"], "recipe.evaluation.metrics=f2 is not allowed: it should be 'f1', .* or 'calibration_error'$"),
        (["aucroc"], "recipe.evaluation.metrics=aucroc is not allowed: .* did you mean auroc"),
        (["cohen"], "recipe.evaluation.metrics=cohen is not allowed: .* did you mean cohen_kappa"),
        (["f1", "recall", "f1"], r"recipe.evaluation.metrics=\[f1,recall,f1\] has a name twice"),
        ("f1", r"recipe.evaluation.metrics=f1 is not allowed: give a list: recipe.evaluation.metrics=\[f1\]"),
    ],
)
def test_a_wrong_name_gives_one_line(given: object, message: str):
    with pytest.raises(UserError, match=message) as error:
        small_config(Path(), recipe__evaluation={"metrics": given})
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    write_images(folder / "images", {"train/a": 20, "train/b": 20, "val/a": 6, "val/b": 5})
    options = {"recipe__ema": {"decay": 0.9}, "recipe__evaluation": {"metrics": ["f1", "auroc"]}}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = make_run(small_config(folder / "images", recipe__batch_size=8, **options))
        fit(run)
        return Run(run.path.absolute())


def test_a_training_logs_them_of_both_networks_beside_top1(run: Run):
    names = [f"{prefix}/{name}" for prefix in ("val", "val_ema") for name in ("f1", "auroc")]
    rows = [row for row in read_metrics(run) if row["val/top1"]]
    assert len(rows) == 2
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in names)
    assert {name: run.summary["last"][name] for name in names} == {name: float(rows[-1][name]) for name in names}
    last = rows[-1]
    assert (
        f"f1 {float(last['val_ema/f1']):.4f}  auroc {float(last['val_ema/auroc']):.4f}"
        in (run.path / "log.txt").read_text()
    )
    with open(run.path / "metrics.csv") as file:
        assert next(csv.reader(file))[5:10] == ["val/loss", "val/top1", "val/top5", "val/f1", "val/auroc"]


def test_a_checkpoint_describes_its_network_as_before(run: Run):
    """Earlier releases read the metadata, and refuse a key that they do not know."""
    content = torch.load(run.checkpoints / "last.ckpt", weights_only=True)
    assert content["metadata"]["evaluation"].keys() == {"image_size", "crop_pct", "interpolation"}
    assert not [name for name in content["state_dict"] if "metrics" in name]
