"""A run that an earlier release (d27f6dc) made and stopped after 7 of 12 steps; fixtures/ has its final result.

The release wrote both on one machine. On the same CPU the result is bit-identical. Another CPU, another release of
torch or another number of threads may sum in another order: then the comparison has a tolerance.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from resnext.__main__ import run_verb
from resnext.loggers.csv import CsvLogger
from resnext.run.metrics import find_lost, read_rows
from support.small_run import write_images
from support.stopping import IMAGES

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_a_run_of_an_earlier_release_ends_with_the_same_result(tmp_path: Path):
    shutil.copytree(FIXTURES / "old_run", "runs/release")
    write_images(tmp_path / "images", IMAGES)
    assert run_verb(["resume", "runs/release", f"data.root='{tmp_path / 'images'}'"]) == 0
    ours = torch.load("runs/release/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    theirs = load_file(FIXTURES / "old_run_weights.safetensors")
    assert ours.keys() == theirs.keys()
    tolerance = {"rtol": 0, "atol": 0} if is_same_machine() else {"rtol": 1e-3, "atol": 1e-4}
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, **tolerance, msg=name)
    rows, expected = (read_rows(path) for path in (Path("runs/release/metrics.csv"), FIXTURES / "old_run_metrics.csv"))
    near = [pytest.approx(numbers(row), rel=tolerance["rtol"], abs=0) for row in expected]
    assert [numbers({name: row[name] for name in expected[0]}) for row in rows] == near
    # The release did not keep the sum of the epoch's losses: only the epoch that begins after the resume has a mean.
    ends = [row for row in rows if row["train/epoch_loss"]]
    assert [row["step"] for row in ends] == ["12"]
    losses = [float(row["train/loss"]) for row in rows if row["train/loss"]][-4:]
    assert float(ends[0]["train/epoch_loss"]) == pytest.approx(sum(losses) / 4)


def test_a_metrics_csv_without_the_newer_columns_has_lost_no_rows(tmp_path: Path):
    """The copy in the checkpoint has the release's columns; a start has rewritten the file with ours."""
    kept, path = (FIXTURES / "old_run/metrics.csv").read_text(), tmp_path / "metrics.csv"
    path.write_text(kept)
    CsvLogger(tmp_path, resume_step=7, validated=True, average=True)
    assert "train/epoch_loss" in path.read_text()
    assert find_lost(path, kept) == []


def is_same_machine() -> bool:
    cpu = dict(re.findall(r"^(vendor_id|cpu family|model|stepping)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M))
    made = json.loads((FIXTURES / "old_run/run.json").read_text())["starts"][0]["versions"]["torch"]
    written = dict(re.findall(r"^(.*): (.*)$", (FIXTURES / "old_run_cpu.txt").read_text(), re.M))
    return cpu == written and torch.__version__.partition("+")[0] == made and torch.get_num_threads() == 1


def numbers(row: dict[str, str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if value}
