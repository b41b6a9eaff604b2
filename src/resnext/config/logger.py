"""Where the metrics of a run go, besides metrics.csv and perf.csv. Imports no torch."""

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from resnext.config.errors import KeyMistake
from resnext.config.parts import parse_named_options
from resnext.config.types import STRICT, Count, Name, Options
from resnext.errors import UserError
from resnext.registry import register_logger

EXTRAS = ("tensorboard", "mlflow")  # each needs the package of this name, which the extra of this name installs


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MlflowOptions:
    """`tracking_uri` null: MLflow's own MLFLOW_TRACKING_URI, else the file mlflow.db in the run directory."""

    tracking_uri: Name | None = None
    experiment: Name = "resnext"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoggerConfig:
    """`mode` auto: W&B is online if there is an API key and the server answers, else offline.

    `project`: W&B's project. `entity`: W&B's user or team; null: your default. `every_steps`: optimizer steps between
    two rows of the training loss. `report`: write RUN/report.html when the training ends. `pictures`: send some images
    of the data to W&B. `names`: loggers in addition to metrics.csv: wandb, tensorboard, mlflow, or your own. W&B also
    logs if it is not named, unless `mode` is disabled. `options`: NAME.OPTION of these loggers.
    """

    mode: Literal["auto", "offline", "disabled"] = "auto"
    project: Name = "resnext"
    entity: str | None = None
    every_steps: Count = 50
    report: bool = True
    pictures: bool = True
    names: tuple[Name, ...] = ()
    options: Options = None

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        object.__setattr__(self, "options", parse_named_options("logger", "logger", self.names, self.options))
        if "wandb" in self.names and self.mode == "disabled":
            raise KeyMistake(
                "logger.names has wandb, but logger.mode=disabled: set logger.mode=auto, or leave wandb out",
                "logger.names",
            )
        return self


def check_logger_packages(config: LoggerConfig) -> None:
    """Raises UserError for the first logger whose package is not installed."""
    for name in config.names:
        if name in EXTRAS and find_spec(name) is None:
            raise UserError(
                f"logger.names={name} needs {name}, which is not installed: pip install -e '.[{name}]' installs it"
            )


register_logger("wandb")  # training/fit.py builds it, because it may also log without being named
# loggers/named.py has the functions that build the others.
register_ours = {
    "tensorboard": register_logger("tensorboard"),
    "mlflow": register_logger("mlflow", options=MlflowOptions),
}
