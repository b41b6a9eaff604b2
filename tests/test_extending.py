"""Each example of docs/extending.md in a run, against an independent result; one also as an installed package."""

import csv
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from resnext.config.loss import LossConfig
from resnext.data.sampler import derive_seed
from resnext.errors import Interrupted
from resnext.registry import load_extensions
from resnext.run.directory import Run
from resnext.run.provenance import describe_code
from resnext.task.loss import build_loss
from resnext.training.fit import fit
from support.extensions import examples, extensions
from support.small_run import make_run, read_metrics, small_config
from support.stopping import Stopper, with_callbacks

EXAMPLES = examples()
SGD = {"name": "momentum", "lr": 0.5, "momentum": 0.0}
COUNTER = """
from lightning.pytorch import Callback
from resnext.registry import NoOptions, register_callback

@register_callback("fading")
class Fading(Callback):
    def __init__(self, options: NoOptions) -> None:
        self.steps = 0

    def on_before_optimizer_step(self, trainer, task, optimizer) -> None:
        self.steps += 1
        for parameter in task.network.parameters():
            parameter.grad /= self.steps

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
"""


@pytest.fixture(scope="module", autouse=True)
def _examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with extensions(tmp_path_factory.mktemp("extensions"), **EXAMPLES, fading=COUNTER):
        yield


def trained(root: Path, name: str, **changes: object) -> Run:
    run = make_run(small_config(root, run=name, **{"recipe__batch_size": 4, "recipe__epochs": 1, **changes}))
    fit(run)
    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    state = torch.load(run.checkpoints / "last.ckpt", weights_only=True)["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}


def test_an_example_is_one_file_of_at_most_thirty_lines():
    assert EXAMPLES.keys() == {"plain", "poly", "noise", "json_lines", "trackio", "listed"}
    lines = {name: len([line for line in text.splitlines() if line.strip()]) for name, text in EXAMPLES.items()}
    assert max(lines.values()) <= 30
    assert lines["trackio"] <= 20


def test_the_examples_follow_the_advice_to_import_torch_late(tmp_path: Path):
    """All six are imported when a configuration is read, which is refused before torch is imported."""
    for name, text in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(text)
    code = (
        f"import sys, resnext.extensions; resnext.extensions.__path__ = [{str(tmp_path)!r}]\n"
        "from resnext.__main__ import run_verb\n"
        "assert run_verb(['train', 'callbacks.names=[gradient_noise]', 'logger.names=[json_line]']) == 2\n"
        "assert not {'torch', 'lightning', 'timm', 'wandb'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "logger.names=json_line is not a registered logger; did you mean json_lines?" in result.stderr


def test_the_network_example_has_the_expected_parameters(image_folder: Path):
    """9·3·c + c parameters in the first convolution, 9·c·c + c in the others, (c + 1)·classes in the classifier."""
    run = trained(image_folder, "net", model={"name": "plain", "options": {"depth": 3, "channels": 5}})
    assert sum(value.numel() for value in weights(run).values()) == (135 + 5) + 2 * (225 + 5) + 6 * 2
    assert run.config.model.options.channels == 5


def test_the_loss_example_equals_its_formula(image_folder: Path, capsys: pytest.CaptureFixture[str]):
    """With epsilon 0, the loss is cross-entropy; with epsilon 1, two equal logits give log 2 + 1/2."""
    mixing = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}
    poly = {"name": "poly", "options": {"epsilon": 0.0}}
    ours = trained(image_folder, "poly", recipe__mixing=mixing, recipe__loss=poly)
    assert "loss      poly, epsilon 0, mixup 0.2, cutmix 1" in capsys.readouterr().out
    theirs = trained(image_folder, "cross_entropy", recipe__mixing=mixing)
    losses = [[float(row["train/loss"]) for row in read_metrics(run) if row["train/loss"]] for run in (ours, theirs)]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    loss = build_loss(LossConfig(name="poly"))(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    assert float(loss) == pytest.approx(0.5 + torch.log(torch.tensor(2.0)).item())


def test_the_callback_example_adds_its_noise_to_the_gradient(image_folder: Path):
    """One step of plain SGD with the noise differs by lr · std · noise from the step without the noise."""
    options = {"names": ["gradient_noise"], "options": {"gradient_noise": {"std": 0.1}}}
    without = trained(image_folder, "plain", recipe__optimizer=SGD, recipe__max_steps=1)
    noisy = trained(
        image_folder, "noisy", recipe__optimizer=SGD, recipe__max_steps=1, recipe__batch_size=4, callbacks=options
    )
    generator = torch.Generator().manual_seed(derive_seed(0, 0))
    before, after = weights(without), weights(noisy)
    names = [name for name in before if not name.rpartition(".")[2].startswith(("running", "num_batches"))]
    for name in names:  # the state dict has the order of the parameters
        noise = torch.randn(before[name].shape, generator=generator)
        torch.testing.assert_close(after[name], before[name] - 0.5 * 0.1 * noise, rtol=1e-4, atol=1e-5, msg=name)


def test_a_run_with_callbacks_resumes_exactly(image_folder: Path):
    callbacks = {"names": ["fading", "gradient_noise"]}
    whole = trained(image_folder, "whole", recipe__epochs=2, callbacks=callbacks)
    halted = make_run(
        small_config(image_folder, run="halted", recipe__batch_size=4, recipe__epochs=2, callbacks=callbacks)
    )
    with with_callbacks(Stopper("on_train_batch_start", 4)), pytest.raises(Interrupted):
        fit(halted)
    fit(halted)
    assert read_metrics(halted) == read_metrics(whole)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(halted).items())


def test_the_logger_example_writes_the_losses_of_metrics_csv(image_folder: Path):
    run = trained(image_folder, "logged", logger__names=["json_lines"])
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    rows = [(int(row["step"]), float(row["train/loss"])) for row in read_metrics(run) if row["train/loss"]]
    assert losses == rows


def test_the_trackio_example_sends_a_resumed_run_to_one_run(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """With a stand-in for trackio, which has the arguments of its functions `init`, `log` and `finish`."""
    calls: list[tuple[str, dict]] = []

    def init(project: str, *, name: str, config: dict, resume: str) -> None:
        calls.append(("init", {"project": project, "name": name, "config": config, "resume": resume}))

    def log(metrics: dict, step: int | None = None) -> None:
        calls.append(("log", {"step": step, **metrics}))

    trackio = SimpleNamespace(init=init, log=log, finish=lambda: calls.append(("finish", {})))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    run = make_run(small_config(image_folder, run="tracked", recipe__batch_size=4, logger__names=["trackio"]))
    with with_callbacks(Stopper("on_train_batch_start", 3)), pytest.raises(Interrupted):
        fit(run)
    fit(run)
    assert [name for name, _ in calls if name != "log"] == ["init", "finish"] * 2
    assert calls[0][1]["config"]["recipe.batch_size"] == 4
    assert {values["name"] for name, values in calls if name == "init"} == {"tracked"}
    losses = [(values["step"], values["train/loss"]) for name, values in calls if "train/loss" in values]
    assert losses == [(int(row["step"]), float(row["train/loss"])) for row in read_metrics(run) if row["train/loss"]]


def test_the_data_set_example_equals_class_folders(image_folder: Path):
    """The same images in class folders give the same metrics."""
    with open(image_folder / "mine.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "class", "split"])
        for path in sorted(image_folder.glob("*/*/*.png"), reverse=True):
            split, name = path.relative_to(image_folder).parts[:2]
            table.writerow([path.relative_to(image_folder), name, split])
    listed = trained(image_folder, "listed", data__name="listed", data__options={"file": "mine.csv"})
    folder = trained(image_folder, "folder")
    assert read_metrics(listed) == read_metrics(folder)
    assert listed.info["data"]["classes"] == ["cat", "dog"]


def test_the_parts_of_an_installed_package_are_found(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its entry point is found, and its source code is part of the run's code digest."""
    site = tmp_path / "site"
    (site / "my_parts").mkdir(parents=True)
    (site / "my_parts/__init__.py").write_text("")
    (site / "my_parts/losses.py").write_text(EXAMPLES["poly"].replace('"poly"', '"my_poly"'))
    (site / "my_parts-1.dist-info").mkdir()
    (site / "my_parts-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1\n")
    (site / "my_parts-1.dist-info/entry_points.txt").write_text("[resnext.extensions]\nlosses = my_parts.losses\n")
    monkeypatch.syspath_prepend(str(site))
    with extensions(tmp_path / "none"):
        run = trained(image_folder, "installed", recipe__loss={"name": "my_poly", "options": {"epsilon": 2.0}})
        assert load_extensions() == ("my_parts.losses",)
        code = run.info["starts"][0]["code"]
        assert code == describe_code()
        assert " my_parts@" in code
        (site / "my_parts/helper.py").write_text("changed = True\n")
        assert describe_code() != code
        expected = F.cross_entropy(torch.zeros(3, 2), torch.tensor([0, 1, 1])) + 1
        loss = build_loss(run.config.recipe.loss)(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        torch.testing.assert_close(loss, expected)
    for name in ("my_parts.losses", "my_parts"):
        del sys.modules[name]
    importlib.invalidate_caches()
