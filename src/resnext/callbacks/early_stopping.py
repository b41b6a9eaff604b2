"""EarlyStopping: ends the training after a validation if recipe.early_stopping says so."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from resnext.config.early_stopping import EarlyStoppingConfig
from resnext.task.classification import ClassificationTask
from resnext.task.early_stopping import History, find_early_stop


class EarlyStopping(Callback):
    """Every rank decides for itself, by the same values.

    Args:
        history: the validations until the loaded checkpoint.
    """

    def __init__(self, config: EarlyStoppingConfig, history: History) -> None:
        self.config, self._history = config, history

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ClassificationTask)
        assert self.config.monitor is not None, "fit builds this callback for a recipe with early stopping"
        self._history.append((pl_module.epoch, pl_module.last_metrics[self.config.monitor]))
        pl_module.early_stop = find_early_stop(self._history, self.config)
        if pl_module.early_stop is not None:
            trainer.should_stop = True
