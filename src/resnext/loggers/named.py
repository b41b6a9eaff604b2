"""The loggers of logger.names, except W&B, which needs the configuration of this start (training/fit.py)."""

from lightning.pytorch.loggers import Logger

from resnext.config.logger import LoggerConfig, register_ours
from resnext.loggers.mlflow import build_mlflow_logger
from resnext.loggers.tensorboard import build_tensorboard_logger
from resnext.loggers.tolerant import Tolerant
from resnext.registry import build_named
from resnext.run.directory import Run

register_ours["tensorboard"](lambda _options, run: build_tensorboard_logger(run))
register_ours["mlflow"](build_mlflow_logger)


def build_named_loggers(config: LoggerConfig, run: Run) -> list[Logger]:
    """The loggers that start without an error. The CSV files of `run` must hold only rows that stay."""
    built = build_named("logger", {name: each for name, each in config.options.items() if name != "wandb"}, run)
    stopped = [each for each in built if isinstance(each, Tolerant) and each.stopped]
    return [each for each in built if each not in stopped]  # the Trainer would ask a stopped one for its experiment
