"""Several ranks: a resume is bit-identical. With another number of ranks, the global batches are the same."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchmetrics.functional import classification as functional

from resnext.data.augment import build_eval_transform, normalize
from resnext.data.dataset import EvalImages, TrainImages
from resnext.data.images import load_images
from resnext.data.sampler import Sample, epoch_order
from resnext.errors import Interrupted
from resnext.models.factory import build_model
from resnext.models.weights import network_weights
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.run.metrics import read_rows
from resnext.training.fit import fit
from resnext.training.parts import build_parts
from support.small_run import write_images
from support.stopping import EPOCHS, IMAGES, STEPS, STOPS, Stopper, build_run, recorded, with_callbacks

pytestmark = pytest.mark.processes

# Every pair of a stop, a number of workers, an optimizer and a set of features is in at least one case.
CASES = [
    ("mid-epoch", None, 0, "sgd", "plain"),
    ("mid-epoch", None, 2, "lamb", "all"),
    ("before validation", None, 0, "lamb", "all"),
    ("before validation", None, 2, "sgd", "plain"),
    ("in validation", None, 0, "lamb", "plain"),
    ("in validation", None, 2, "sgd", "all"),
    ("after validation", None, 0, "sgd", "all"),
    ("after validation", None, 2, "lamb", "plain"),
    ("mid-epoch", 4, 0, "sgd", "all"),
    ("mid-epoch", 4, 2, "lamb", "plain"),
]

# With three or more ranks, a sum depends on its order, and so on the layout of the gradient buckets.
# (ranks, stops, images of a micro-step, optimizer, features, changes); the global batch is 48
MANY_RANKS = [
    (3, ["mid-epoch"], None, "sgd", "plain", {}),
    (3, ["mid-epoch", "after validation"], 8, "lamb", "all", {}),
    (4, ["before validation"], None, "lamb", "all", {"trainer__on_nonfinite": "skip"}),
    (4, ["mid-epoch", "in validation"], 6, "sgd", "plain", {}),
    (8, ["mid-epoch", "before validation"], None, "sgd", "all", {}),
]
MOST = 8
FROZEN = ["conv1", "bn1", "layer1"]


class Ranks:
    """The processes of support/ranks.py."""

    def __init__(self, count: int = MOST) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, str(Path(__file__).parents[1] / "support/ranks.py"), str(count)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
        self.process = subprocess.Popen(command, **pipes)

    def fit(self, run: Run, world: int, stop: tuple[str, int] | None = None, stopped_rank: int = 0) -> set[str]:
        """How the fit ended on each rank. Only one rank gets the signal."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        request = {"run": str(run.path), "folder": str(Path.cwd()), "port": port, "world": world}
        print(json.dumps(request | {"stop": stop, "stopped_rank": stopped_rank}), file=self.process.stdin, flush=True)
        return set(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(timeout=60) == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with closing(Ranks()) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_images(root, IMAGES)
    return root


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory, ranks: Ranks) -> Callable[..., Run]:
    """The uninterrupted run for these options, trained once by two ranks, without workers."""
    folder, trained = tmp_path_factory.mktemp("undisturbed"), {}

    def find(optimizer: str, features: str, micro: int | None) -> Run:
        key = f"{optimizer}-{features}-{micro}"
        if key not in trained:
            run = build_run(images, key, optimizer=optimizer, features=features, micro=micro, workers=0, devices=2)
            trained[key] = Run(run.path.rename(folder / key))
            assert ranks.fit(trained[key], 2) == {"finished"}
        return trained[key]

    return find


@pytest.mark.parametrize(("stop", "micro", "workers", "optimizer", "features"), CASES)
def test_a_resume_with_another_number_of_workers_is_bit_identical(
    ranks: Ranks,
    images: Path,
    undisturbed: Callable,
    stop: str,
    micro: int,
    workers: int,
    optimizer: str,
    features: str,
):
    options = {"optimizer": optimizer, "features": features, "micro": micro}
    run = build_run(images, "parts", **options, workers=workers, devices=2)
    assert ranks.fit(run, 2, STOPS[stop], stopped_rank=workers // 2) == {"interrupted"}
    assert run.summary["steps"] == {"mid-epoch": 7}.get(stop, 8)  # two ranks agree one step after the signal
    run.add_start(replace(run.config, data=replace(run.config.data, workers=2 - workers)))
    assert ranks.fit(run, 2) == {"finished"}
    whole = undisturbed(**options)
    assert [part for part in compare(whole, run) if not part.same] == []
    assert (whole.path / "metrics.csv").read_bytes() == (run.path / "metrics.csv").read_bytes()


def test_frozen_parts_stay_on_two_ranks_and_a_resume_is_bit_identical(ranks: Ranks, images: Path):
    """With class weights, which each rank computes from all images. The start is the same network on one rank."""
    loss = {"name": "focal", "class_weights": "balanced"}
    options = {"optimizer": "lamb", "features": "all", "micro": 4, "workers": 0, "devices": 2, "recipe__loss": loss}
    whole, parts = (build_run(images, name, **options, model__freeze=FROZEN) for name in ("whole", "parts"))
    start = build_parts(whole.config, *load_images(whole.config.data)).network.state_dict()
    assert ranks.fit(whole, 2) == {"finished"}
    assert ranks.fit(parts, 2, STOPS["mid-epoch"], stopped_rank=1) == {"interrupted"}
    assert ranks.fit(parts, 2) == {"finished"}
    assert [part for part in compare(whole, parts) if not part.same] == []
    content = torch.load(whole.checkpoints / "last.ckpt", weights_only=True)
    for key in ("state_dict", "state_dict_ema"):
        same = {name for name, value in start.items() if torch.equal(content[key][f"network.{name}"], value)}
        assert same == {name for name in start if name.startswith(tuple(FROZEN))}


@pytest.fixture(scope="module")
def more_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 steps of 48 images per epoch, with 2 images left over."""
    root = tmp_path_factory.mktemp("data")
    write_images(root, IMAGES | {"train/a": 94, "train/b": 100})
    return root


@pytest.mark.parametrize(("world", "stops", "micro", "optimizer", "features", "changes"), MANY_RANKS)
def test_a_resume_on_many_ranks_is_bit_identical(
    ranks: Ranks, more_images: Path, world: int, stops: list, micro: int, optimizer: str, features: str, changes: dict
):
    options = {"optimizer": optimizer, "features": features, "micro": micro, **changes}
    whole, parts = (
        build_run(more_images, name, workers=0, devices=world, batch=48, **options) for name in ("whole", "parts")
    )
    assert ranks.fit(whole, world) == {"finished"}
    for stop in stops:
        assert ranks.fit(parts, world, STOPS[stop], stopped_rank=world - 1) == {"interrupted"}
    assert ranks.fit(parts, world) == {"finished"}
    assert [part for part in compare(whole, parts) if not part.same] == []
    assert (whole.path / "metrics.csv").read_bytes() == (parts.path / "metrics.csv").read_bytes()


@pytest.mark.parametrize("first", [1, 2])
def test_a_resume_in_an_epoch_with_another_number_of_ranks(ranks: Ranks, images: Path, first: int):
    """Every epoch has each image once, and metrics.csv has each step once."""
    run = build_run(images, "parts", optimizer="sgd", features="plain", micro=None, workers=0, devices=first)

    def fit_alone(stop: tuple[str, int] | None = None) -> set[str]:

        with with_callbacks(*([Stopper(*stop)] if stop else [])), recorded(TrainImages, Path("seen-alone.txt")):
            try:
                fit(run)
            except Interrupted:
                return {"interrupted"}
        return {"finished"}

    def fit_pair(stop: tuple[str, int] | None = None) -> set[str]:
        return ranks.fit(run, 2, stop)

    one, other = (fit_alone, fit_pair) if first == 1 else (fit_pair, fit_alone)
    assert one(STOPS["mid-epoch"]) == {"interrupted"}
    trainer = replace(run.config.trainer, devices=3 - first)
    run.add_start(replace(run.config, trainer=trainer))
    assert other() == {"finished"}

    stopped_at = {1: 6, 2: 7}[first]  # two ranks agree one step after the signal
    starts = [(start["world_size"], start["from_step"]) for start in run.info["starts"]]
    assert starts == [(first, 0), (3 - first, stopped_at)]
    seen = Counter(line for path in Path().glob("seen-*.txt") for line in path.read_text().splitlines())
    size = IMAGES["train/a"] + IMAGES["train/b"]
    images_of = {epoch: epoch_order(run.config.seed, epoch, size)[: STEPS * 16] for epoch in range(EPOCHS)}
    assert seen == Counter(f"{epoch} {image}" for epoch, order in images_of.items() for image in order)
    rows = [row for row in read_rows(run.path / "metrics.csv") if row["lr"]]
    assert [row["step"] for row in rows] == [str(n) for n in range(1, 13)]
    losses = [sum(float(row["train/loss"]) for row in rows[begin : begin + STEPS]) / STEPS for begin in (0, 4, 8)]
    assert [float(row["train/epoch_loss"]) for row in rows if row["train/epoch_loss"]] == pytest.approx(losses)


def test_a_complete_run_ends_alike_on_all_ranks(images: Path):
    """A tensor of best.ckpt is damaged after the last step: only rank 0 checks all bytes, and only it reports this."""
    run = build_run(images, "complete", optimizer="sgd", features="plain", micro=None, workers=0, devices=2)
    best = run.checkpoints / "best.ckpt"
    with closing(Ranks(2)) as ranks:
        assert ranks.fit(run, 2) == {"finished"}
        run.update_summary(status="running")  # as after a kill in the last second
        assert ranks.fit(run, 2) == {"finished"}
        assert run.summary["status"] == "finished"

        run.update_summary(status="running")
        tensor = max(torch.load(best)["state_dict"].values(), key=torch.numel).numpy().tobytes()
        whole = best.read_bytes()
        best.write_bytes(whole.replace(tensor, bytes(len(tensor)), 1))
        endings = ranks.fit(run, 2)
    assert run.summary["status"] == "failed"
    assert len(endings) == 2
    assert "UserError('')" in endings
    assert any("best.ckpt is missing, and the best is epoch" in each for each in endings)


def test_metrics_by_name_and_early_stopping_on_two_ranks(ranks: Ranks, images: Path):
    """The ranks have 11 and 10 validation images; the values are those of all logits in one process."""
    names = ["f1", "specificity", "auroc", "average_precision", "cohen_kappa", "calibration_error"]
    stopping = {"monitor": "val/auroc", "patience": 1, "min_delta": 1.0}  # so it ends after the second epoch
    changes = {"recipe__evaluation": {"metrics": names}, "recipe__early_stopping": stopping}
    options = {"optimizer": "sgd", "features": "plain", "micro": None, "workers": 0, "devices": 2}
    whole, parts = (build_run(images, name, **options, **changes) for name in ("whole", "parts"))
    assert ranks.fit(whole, 2) == {"finished"}
    assert ranks.fit(parts, 2, STOPS["in validation"], stopped_rank=1) == {"interrupted"}
    assert ranks.fit(parts, 2) == {"finished"}
    assert [part for part in compare(whole, parts) if not part.same] == []
    assert (whole.path / "metrics.csv").read_bytes() == (parts.path / "metrics.csv").read_bytes()
    row = read_rows(whole.path / "metrics.csv")[-1]
    assert (row["epoch"], parts.summary["status"], parts.summary["stopped"]) == (
        "2",
        "finished",
        whole.summary["stopped"],
    )

    config, (_, val) = whole.config, load_images(whole.config.data)
    network = build_model(config.model, 2)
    network.load_state_dict(
        network_weights(torch.load(whole.checkpoints / "last.ckpt", weights_only=True)["state_dict"])
    )
    transform = build_eval_transform(config.recipe.evaluation, config.recipe.eval_image_size)
    pixels = torch.stack([EvalImages(val, None, transform)[Sample(0, image)][0] for image in range(len(val))])
    with torch.no_grad():
        probabilities = network.eval()(normalize(pixels, config.data)).softmax(1)
    for name in names:
        theirs = getattr(functional, f"multiclass_{'f1_score' if name == 'f1' else name}")
        expected = float(theirs(probabilities, torch.tensor(val.labels), num_classes=2))
        assert float(row[f"val/{name}"]) == pytest.approx(expected, abs=1e-6), name
