"""What is checked before a run directory is made: names, weights, arithmetic and devices."""

from resnext.config import Config
from resnext.data.augment import build_train_transform
from resnext.data.index import ImageIndex
from resnext.data.order import steps_per_epoch
from resnext.models.factory import build_model
from resnext.task.optimization import build_optimizer
from resnext.training.device import count_devices, resolve_auto


def check_before_run(config: Config, train: ImageIndex) -> None:
    """Raises UserError for whatever would end the training on this machine before its first step."""
    config.accumulation(count_devices(config.trainer) * config.trainer.nodes)
    steps_per_epoch(len(train), config.recipe.batch_size)
    resolve_auto(config.trainer)
    build_train_transform(config.recipe, config.data)
    network = build_model(config.model, len(train.classes))
    build_optimizer(network, config.recipe.optimizer)
