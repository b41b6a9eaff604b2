"""Builds Lightning's Trainer for a run."""

import sys
from datetime import timedelta
from pathlib import Path

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy

from resnext.config.schema import Config, TrainerConfig
from resnext.runtime.checkpoint import Checkpoint
from resnext.runtime.checkpoint_io import AtomicCheckpointIO
from resnext.runtime.gradient_buckets import FixedBucketsDDP
from resnext.runtime.lightning_private import silence_signals
from resnext.runtime.slurm_job import is_slurm_rank
from resnext.runtime.world import World


def build_trainer(
    config: Config,
    world: World,
    folder: Path,
    *,
    callbacks: list[Callback],
    loggers: list[Logger],
    checkpoint: Checkpoint | None = None,
) -> Trainer:
    """The Trainer, without Lightning's own sampler, progress bar, summary and sanity check.

    The `auto` values of `config.trainer` must be resolved. `Trainer.fit` gets the path of `checkpoint`.
    """
    trainer = config.trainer
    built = Trainer(
        accelerator=trainer.accelerator,
        devices=world.devices,
        num_nodes=world.nodes,
        strategy=_build_strategy(trainer, world),
        precision=trainer.precision,  # pyright: ignore[reportArgumentType]
        accumulate_grad_batches=config.split_batch(world.size).accumulation,
        gradient_clip_val=config.recipe.optimizer.clip_grad_norm,
        max_epochs=-1,  # ClassificationTask counts the steps and ends the training
        check_val_every_n_epoch=sys.maxsize,  # never: LastCheckpoint runs the validation
        deterministic=trainer.deterministic,  # also Inductor's deterministic mode: torch sets both
        benchmark=trainer.accelerator == "gpu" and not trainer.deterministic,
        plugins=[AtomicCheckpointIO(checkpoint), _find_environment(world)],
        callbacks=callbacks,
        logger=loggers or False,
        default_root_dir=folder,
        log_every_n_steps=1,  # ClassificationTask selects the steps to log
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    silence_signals(built)
    return built


def _find_environment(world: World) -> ClusterEnvironment:
    """Choose the environment explicitly: Lightning mistakes an interactive SLURM shell for a task."""
    if is_slurm_rank() and world.size > 1:
        return SLURMEnvironment(auto_requeue=False)
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else LightningEnvironment()


def _build_strategy(config: TrainerConfig, world: World) -> Strategy | str:
    """DDP if there are several ranks.

    It does not broadcast the batch statistics at every step: ClassificationTask does so once before each validation.
    """
    if world.size == 1:
        return "auto"
    backend = "nccl" if config.accelerator == "gpu" else "gloo"
    return FixedBucketsDDP(
        process_group_backend=backend,
        timeout=timedelta(minutes=config.timeout_minutes),
        forward_sync_buffers=False,
        gradient_as_bucket_view=True,
    )
