"""The MLflow logger of a run: all its starts are one MLflow run, which has each step once."""

import os
import time
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger

from resnext.config.logger import MlflowOptions
from resnext.loggers.rows import flat_config, read_logged
from resnext.loggers.tolerant import Tolerant
from resnext.run.directory import Run

BATCH = 1000
TAG = "resnext.run_id"  # the id in run.json, which is also W&B's
LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # by default several minutes


class Mlflow(Tolerant, MLFlowLogger):
    """Sends no value a second time: MLflow would show both."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.sent: set[tuple[str, int]] = set()

    @property
    def name(self) -> str:
        """Lightning's own properties ask the server."""
        return self._experiment_name

    @property
    def version(self) -> str:
        return self._run_id or ""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        assert step is not None
        new = {name: value for name, value in metrics.items() if (name, step) not in self.sent}
        self.sent |= {(name, step) for name in new}
        if new:
            super().log_metrics(new, step)


def build_mlflow_logger(options: MlflowOptions, run: Run) -> Mlflow:
    """Starts or continues the MLflow run with the id of this run, and sends the rows of the CSV files that it lacks."""
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)
    store = f"sqlite:///{run.path.absolute()}/mlflow.db"
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or store
    logger = Mlflow(
        experiment_name=options.experiment,
        run_name=run.path.name,
        tracking_uri=uri,
        tags={TAG: run.info["wandb_id"]},
        artifact_location=(run.path.absolute() / "mlflow").as_uri() if uri == store else None,
    )
    logger.attempt(_continue, logger, run)
    return logger


def _continue(logger: Mlflow, run: Run) -> None:
    """Finds the MLflow run, reads what it has, and sends the parameters and the metrics that it lacks."""
    client: Any = logger._mlflow_client
    experiment = client.get_experiment_by_name(logger._experiment_name)
    if experiment is not None:
        found = client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{run.info['wandb_id']}'")
        logger._run_id = found[0].info.run_id if found else None
    known = logger.experiment.get_run(logger.run_id).data
    logger.experiment.update_run(logger.run_id, status="RUNNING")
    logger.sent = {
        (name, value.step)
        for name in known.metrics
        for value in logger.experiment.get_metric_history(logger.run_id, name)
    }
    # a parameter never changes in MLflow: one that differs at this start keeps the value of the first
    logger.log_hyperparams({key: value for key, value in flat_config(run).items() if key not in known.params})
    _send_lacking(logger, run)


def _send_lacking(logger: Mlflow, run: Run) -> None:
    """In requests of 1,000 values, MLflow's limit: a request takes about 50 ms, and the other ranks wait."""
    from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

    now = int(1000 * time.time())
    lacking = {
        (name, step): value
        for step, row in read_logged(run.path)
        for name, value in row.items()
        if (name, step) not in logger.sent
    }
    metrics = [Metric(name, value, now, step) for (name, step), value in lacking.items()]
    for at in range(0, len(metrics), BATCH):
        logger.experiment.log_batch(logger.run_id, metrics=metrics[at : at + BATCH])
    logger.sent |= lacking.keys()
