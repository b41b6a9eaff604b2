"""The schema of the configuration, how Hydra composes it, and how a mistake in it is described. Imports no torch.

Not here: what a value does. `from resnext.config import Config, ModelConfig` is the public interface.
"""

from resnext.config.schema import (
    CallbacksConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    LoggerConfig,
    ModelConfig,
    TrainerConfig,
    parse_config,
)

__all__ = [
    "CallbacksConfig",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "LoggerConfig",
    "ModelConfig",
    "TrainerConfig",
    "parse_config",
]
