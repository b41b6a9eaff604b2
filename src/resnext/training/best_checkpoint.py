"""When best.ckpt is written."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from resnext.training.checkpoint import BEST


class BestCheckpoint(ModelCheckpoint):
    """Writes best.ckpt: the first epoch of the highest `monitor`."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(folder, "best", monitor=monitor, mode="max", save_top_k=1, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where the run directory was moved, Lightning would forget the best score and overwrite best.ckpt."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})
        if self.best_model_score is not None:
            self.best_model_path = self.kth_best_model_path = str(Path(self.dirpath or "") / BEST)
            self.best_k_models = {self.best_model_path: self.best_model_score}
