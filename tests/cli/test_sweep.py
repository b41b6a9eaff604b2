"""resnext sweep: mistakes before any run, a real sweep with a failing trial, a signal, and what is shown."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.run.metrics import read_rows

TINY = (
    *("experiment=resnext_digits", "model.layers=[1,1]", "model.width=8", "logger=csv", "data.workers=0"),
    *("trainer.precision=32-true", "recipe.epochs=3"),
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the name of a sweep, or KEY=SPACE"),
        (("nosuch",), "nosuch is not a sweep: runs/nosuch has no sweep.yaml"),
        (("--table", "run=a", "seed=1"), "--table and --json need the name of a sweep: resnext sweep NAME --table"),
        (("recipe.optimiser.lr=1,2",), "recipe.optimiser is not a configuration key; did you mean recipe.optimizer?"),
        (("recipe=a2,a9",), "recipe=a9 does not exist; recipe is one of a1, a2"),
        (("recipe.optimizer.lr=0.1,-1",), "recipe.optimizer.lr=-1 is not allowed: it should be greater than 0"),
        (("recipe.epochs=1,2", "sweep.metric=val/f1"), "sweep.metric=val/f1 is not a metric of these runs: they have"),
        (("recipe.epochs=1,2", "run=a/b"), "run='a/b' must be a plain folder name in runs/, such as lr"),
        (("recipe.epochs=range(2,2)",), "recipe.epochs=range(2,2): the space is empty"),
    ],
)
def test_a_mistake_is_one_line_before_any_run(arguments: tuple[str, ...], message: str, capsys):
    assert run_verb(["sweep", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"resnext sweep: {message}")
    assert not list(Path().glob("runs/*"))


def test_a_name_that_is_taken_is_refused(capsys):
    Path("runs/taken-0").mkdir(parents=True)
    Path("runs/taken-0/config.yaml").touch()
    Path("runs/other").mkdir()
    for name, found in (
        ("taken", "runs/taken-0 exists, and would be a run of this sweep"),
        ("other", "runs/other exists"),
    ):
        assert run_verb(["sweep", f"run={name}", "recipe.epochs=1,2"]) == 2
        assert found in capsys.readouterr().err


@pytest.mark.processes
def test_a_sweep_records_a_failing_trial_and_trains_the_others(resnext: Callable, digits: Path):
    """One batch is larger than the dataset. The table, the JSON and trials.csv agree with the runs' own files."""
    arguments = (*TINY, f"data.root={digits}", "recipe.batch_size=64,9999", "sweep.seeds=[0,1]", "sweep.parallel=2")
    done = resnext("sweep", "run=sizes", *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 trials: 1 complete, 1 failed" in done.stdout
    assert "at full length, without recipe.epochs=3, which shortens the sweep:" in done.stdout
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("  resnext train ")]
    assert "recipe.batch_size=64 run=sizes-best" in command
    shown = json.loads(resnext("sweep", "sizes", "--json").stdout)
    rows = {row["trial"]: row for row in csv.DictReader(Path("runs/sizes/trials.csv").read_text().splitlines())}
    for trial in shown["trials"]:
        row = rows[str(trial["trial"])]
        assert (row["state"], row["recipe.batch_size"]) == (trial["state"], trial["recipe.batch_size"])
        if trial["state"] == "failed":
            assert "9999" in trial["error"]
            continue
        best = [
            max(float(each["val/top1"]) for each in read_rows(Path("runs") / name / "metrics.csv") if each["val/top1"])
            for name in trial["runs"].split()
        ]
        assert trial["value"] == pytest.approx(sum(best) / 2, abs=1e-12)
        assert trial["std"] == pytest.approx(abs(best[0] - best[1]) / 2**0.5, abs=1e-12)
    again = resnext("sweep", "run=sizes", *arguments)  # nothing is left to do
    assert again.returncode == 0
    assert len(Path("runs/sizes/jobs.csv").read_text().splitlines()) == 1 + len(
        list(Path("runs/sizes/output").iterdir())
    )
    refused = resnext("sweep", "run=sizes", *TINY, "recipe.batch_size=32,64")
    assert refused.returncode == 2
    assert refused.stderr.startswith("resnext sweep: runs/sizes is a different sweep: its ")


@pytest.mark.processes
def test_ctrl_c_saves_the_runs(digits: Path):
    command = [sys.executable, "-m", "resnext", "sweep", "run=long", *TINY[:-1], f"data.root={digits}"]
    command += ["recipe.epochs=500,600", "logger.every_steps=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        metrics = Path("runs/long-0/metrics.csv")
        deadline = time.monotonic() + 120
        while not (metrics.exists() and len(read_rows(metrics)) > 3) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "interrupted: the runs are saved; `resnext sweep long` goes on" in output
    assert Path("runs/long-0/checkpoints/last.ckpt").exists()
    assert json.loads(Path("runs/long-0/summary.json").read_text())["status"] == "interrupted"
