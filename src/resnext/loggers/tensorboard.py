"""The TensorBoard logger of a run: event files in its folder tensorboard/, in which a reader sees each step once."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from resnext.errors import describe_error
from resnext.loggers.rows import flat_config, read_logged
from resnext.loggers.tolerant import Tolerant
from resnext.run.directory import Run

FOLDER = "tensorboard"
FLUSH_SECONDS = 30

log = logging.getLogger(__name__)


class TensorBoard(Tolerant, TensorBoardLogger):
    """Writes the epoch once for each step, although several callbacks log a step."""

    last_step: int | None = None

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if step == self.last_step:
            metrics = {name: value for name, value in metrics.items() if name != "epoch"}
        self.last_step = step
        super().log_metrics(metrics, step)

    @property
    def log_dir(self) -> str:
        """Lightning's own property would expand `$` and `~` in the name of a run."""
        return self.root_dir

    def save(self) -> None:
        """Does nothing: Lightning's own method would write hparams.yaml, and config.yaml has more."""


def build_tensorboard_logger(run: Run) -> TensorBoard:
    """Continues the event files of the run.

    A killed start leaves steps after the checkpoint, or lacks the last ones. If the files differ from metrics.csv and
    perf.csv, a reader is told to drop all steps from the first difference on, and they are written again.
    """
    folder, rows = run.path / FOLDER, list(read_logged(run.path))
    difference = find_difference(read_events(folder), {(name, step) for step, row in rows for name in row})
    logger = TensorBoard(
        str(folder), name="", version="", default_hp_metric=False, purge_step=difference, flush_secs=FLUSH_SECONDS
    )
    logger.attempt(_begin, logger, run)
    for step, row in rows:
        if difference is not None and step >= difference:
            logger.log_metrics(row, step)
    logger.last_step = rows[-1][0] if rows else None  # a resumed validation continues this step
    return logger


def read_events(folder: Path) -> set[tuple[str, int]]:
    """(name, step) of each scalar that TensorBoard shows; none if the folder does not exist or cannot be read."""
    from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
        SCALARS,
        EventAccumulator,
    )

    if not folder.is_dir():
        return set()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # silent about the steps that it drops
    try:
        events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    except Exception as error:  # damaged in a way that TensorBoard does not expect
        log.warning("%s cannot be read (%s): all steps are written again", folder, describe_error(error))
        return set()
    return {(name, scalar.step) for name in events.Tags()[SCALARS] for scalar in events.Scalars(name)}


def find_difference(present: set[tuple[str, int]], wanted: set[tuple[str, int]]) -> int | None:
    """The first step that is only in one of both; None if they are equal."""
    return min((step for _, step in present ^ wanted), default=None)


def _begin(logger: TensorBoard, run: Run) -> None:
    """Writes the configuration as a row of the HPARAMS table, whose metrics are the last values of the run."""
    from torch.utils.tensorboard.summary import hparams

    plain = {key: _plain(value) for key, value in flat_config(run).items()}
    metrics = dict.fromkeys(("train/epoch_loss", "val/loss", run.config.recipe.best_by), 0.0)
    writer: Any = logger.experiment
    for summary in hparams(plain, metrics):  # type: ignore[arg-type]
        writer._get_file_writer().add_summary(summary)  # as Lightning does; with `add_hparams` it would be another run


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
