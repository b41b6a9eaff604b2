"""MLflow: all starts are one run of MLflow, each step is there once, and a server that fails changes nothing."""

import os
import socket
from pathlib import Path

import pytest

from resnext.errors import Interrupted
from resnext.loggers.csv import CsvLogger
from resnext.loggers.mlflow import build_mlflow_logger
from resnext.run.directory import Run
from resnext.training.fit import fit
from support.small_run import make_run, read_metrics, small_config
from support.stopping import Stopper, with_callbacks

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("default")  # of MLflow's own packages


@pytest.fixture(autouse=True)
def _without_mlflows_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("MLFLOW")]:
        monkeypatch.delenv(name)


def test_a_stopped_and_resumed_run_is_one_run_with_each_step_once(digits: Path):
    run = make_run(small_config(digits, run="parts", recipe__batch_size=359, logger__names=["mlflow"]))
    with with_callbacks(Stopper("on_train_batch_start", 5)), pytest.raises(Interrupted):
        fit(run)
    fit(run)
    client, found = find_run(run)
    losses = {each.step: each.value for each in client.get_metric_history(found.info.run_id, "train/loss")}
    assert losses == {int(row["step"]): float(row["train/loss"]) for row in read_metrics(run) if row["train/loss"]}
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 8
    assert len(client.get_metric_history(found.info.run_id, "val/top1")) == 2
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "parts"
    assert found.data.params["recipe.optimizer.lr"] == "0.05"
    assert found.data.params["trainer.channels_last"] == "True"
    assert sorted(path.name for path in Path().iterdir() if "ml" in path.name) == []  # all is in the run directory


def find_run(run: Run):
    client = mlflow.tracking.MlflowClient(f"sqlite:///{run.path.absolute()}/mlflow.db")
    experiment = client.get_experiment_by_name("resnext")
    (found,) = client.search_runs([experiment.experiment_id])
    return client, found


def test_the_steps_that_a_killed_start_sent_are_not_sent_again(digits: Path):
    """Its checkpoint is at step 3. It sent step 5, but not step 4; the next start has another configuration."""
    run = make_run(small_config(digits, logger__names=["mlflow"]))
    for resumed, last in ((0, 5), (3, 6)):
        csv = CsvLogger(run.path, resumed, validated=True, average=False)
        logger = build_mlflow_logger(run.config.logger.options["mlflow"], run)
        for step in range(resumed + 1, last + 1):
            csv.log_metrics({"epoch": 1, "train/loss": 1 / step}, step)
            if (resumed, step) != (0, 4):
                logger.log_metrics({"epoch": 1, "train/loss": 1 / step}, step)
    client, found = find_run(run)
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted((each.step, each.value) for each in history) == [(step, 1 / step) for step in range(1, 7)]


def test_a_server_that_does_not_answer_is_one_warning(digits: Path, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    uri = f"http://user:hunter2@127.0.0.1:{port}"
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    run = make_run(small_config(digits, recipe__max_steps=2, logger__names=["mlflow"]))
    fit(run)
    output = capsys.readouterr().out
    assert run.summary["status"] == "finished"
    assert output.count("warning: Mlflow has failed: ") == 1
    assert "hunter2" not in output + (run.path / "log.txt").read_text()
