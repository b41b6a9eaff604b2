"""compare: two runs that are the same, and runs with one small change in each part."""

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from resnext.cli.compare import main
from resnext.errors import UserError
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.runtime.checkpoint_io import AtomicCheckpointIO
from resnext.training.fit import fit
from support.small_run import small_config
from support.stopping import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        run = make_run(small_config(digits, recipe__max_steps=3, recipe__ema={"decay": 0.9}))
        fit(run)
        return Run(run.path.absolute())


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(run.path, tmp_path / "copy")))


def differences(one: Run, other: Run) -> dict[str, str]:
    return {part.name: part.text for part in compare(one, other) if not part.same}


def rewrite(run: Run, change: Any, name: str = "last.ckpt") -> None:
    content = torch.load(run.checkpoints / name, weights_only=True)
    change(content)
    AtomicCheckpointIO().save_checkpoint(content, run.checkpoints / name)


def test_a_copy_is_identical(run: Run, copy: Run, resnext):
    names = ["metrics.csv", "position", "weights", "EMA", "optimizer", "best.ckpt"]
    assert [part.name for part in compare(run, copy)] == names
    assert differences(run, copy) == {}
    result = resnext("compare", str(run.path), str(copy.path))
    assert result.returncode == 0, result.stderr
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [[name, "identical"] for name in names]
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_one_changed_number_in_metrics_is_found(run: Run, copy: Run, resnext):
    path = copy.path / "metrics.csv"
    rows = list(csv.reader(path.read_text().splitlines()))
    rows[2][rows[0].index("train/loss")] = repr(float(rows[2][rows[0].index("train/loss")]) + 0.25)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert list(differences(run, copy)) == ["metrics.csv"]
    assert differences(run, copy)["metrics.csv"].startswith("first at step 2 (epoch 1), train/loss: ")
    assert differences(run, copy)["metrics.csv"].endswith(", by 0.25")
    result = resnext("compare", str(run.path), str(copy.path))
    assert (result.returncode, result.stderr) == (1, "")
    assert "metrics.csv different  first at step 2" in result.stdout


def test_a_missing_row_is_found(run: Run, copy: Run):
    path = copy.path / "metrics.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert differences(run, copy) == {"metrics.csv": "4 rows and 3 rows; the common rows are the same"}


def test_one_changed_value_of_weights_average_and_optimizer_is_found(run: Run, copy: Run):
    def change(content: dict) -> None:
        content["state_dict"]["network.conv1.weight"][0, 0, 0, 0] += 0.5
        content["state_dict_ema"]["network.bn1.running_mean"][1] -= 0.25
        content["optimizer_states"][0]["state"][2]["momentum_buffer"] += 1

    rewrite(copy, change)
    found = differences(run, copy)
    assert list(found) == ["weights", "EMA", "optimizer"]
    assert "the first network.conv1.weight: by 0.5 at most" in found["weights"]
    assert "the first network.bn1.running_mean: by 0.25 at most" in found["EMA"]
    assert "the first 0.state.2.momentum_buffer: by 1 at most" in found["optimizer"]


def test_another_position_and_shape_are_found(run: Run, copy: Run):
    def change(content: dict) -> None:
        content["global_step"] = 2
        content["state_dict"]["network.conv1.weight"] = torch.zeros(3)

    rewrite(copy, change)
    found = differences(run, copy)
    assert found["position"] == "1 of 2, the first step: 3 and 2"
    assert found["weights"].endswith("and [3]")


def test_a_run_without_a_checkpoint_and_a_missing_run_are_refused(run: Run, copy: Run, resnext):
    (copy.checkpoints / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"copy/checkpoints/last.ckpt does not exist: .* has best.ckpt, previous.ckpt$"):
        compare(run, copy)
    result = resnext("compare", str(run.path), "nothing")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_best_checkpoints_are_compared(run: Run, copy: Run):
    def change(content: dict) -> None:
        content["state_dict"]["network.conv1.weight"][0, 0, 0, 0] += 0.5

    rewrite(copy, change, "best.ckpt")
    assert list(differences(run, copy)) == ["best.ckpt"]
    assert "the first state_dict.network.conv1.weight: by 0.5 at most" in differences(run, copy)["best.ckpt"]
    (copy.checkpoints / "best.ckpt").unlink()
    assert list(differences(run, copy)) == ["best.ckpt"]
    assert differences(copy, copy) == {}


@pytest.mark.parametrize("step", [1, 10**9])
def test_lines_fit_a_terminal(run: Run, copy: Run, capsys: pytest.CaptureFixture[str], step: int):
    """The texts are complete, only wrapped."""

    def change(content: dict) -> None:
        content["global_step"] = step
        content["state_dict"]["network.conv1.weight"] += 0.5
        content["optimizer_states"][0]["state"][2]["momentum_buffer"] += step

    rewrite(copy, change)
    shutil.copytree(run.path, "runs/" + "name" * 15)
    (Path("runs") / ("name" * 15) / "metrics.csv").write_text("")
    for one in (run.path, Path("runs") / ("name" * 15)):
        assert main([str(one), str(copy.path)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        found = " ".join(" ".join(lines).split())
        assert all(text in found for text in ("the first network.conv1.weight: by 0.5 at most", f"3 and {step}"))


def test_two_runs_that_lost_the_same_rows_differ(run: Run, copy: Run, tmp_path: Path):
    other = Run(Path(shutil.copytree(run.path, tmp_path / "other")))
    for each in (copy, other):
        path = each.path / "metrics.csv"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert list(differences(copy, other)) == ["metrics.csv"]
    lost = f"{copy.path}/metrics.csv has lost or changed rows of its last.ckpt: 1 row, step 2"
    assert differences(copy, other)["metrics.csv"] == lost
