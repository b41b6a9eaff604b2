"""What is checked before a run directory is made: names, weights, arithmetic and devices."""

from resnext.config import Config
from resnext.data.augment import build_train_transform
from resnext.data.index import ImageIndex
from resnext.data.order import steps_per_epoch
from resnext.models.factory import check_model_name
from resnext.models.weights import load_weights
from resnext.task.optimization import check_optimizer_name
from resnext.training.device import count_devices, resolve_auto


def check_before_run(config: Config, train: ImageIndex) -> None:
    """Raises UserError for whatever would end the training on this machine before its first step."""
    check_model_name(config.model.name)
    check_optimizer_name(config.recipe.optimizer.name)
    build_train_transform(config.recipe, config.data)
    steps_per_epoch(len(train), config.recipe.batch_size)
    config.accumulation(count_devices(config.trainer) * config.trainer.nodes)
    resolve_auto(config.trainer)
    if config.model.weights is not None:
        load_weights(config.model.weights)
