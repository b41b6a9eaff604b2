"""Recomputes the batch statistics of a network: averaged statistics do not fit averaged weights.

As in "Averaging Weights Leads to Wider Optima" (Izmailov et al. 2018) and torch.optim.swa_utils.update_bn: one pass
over training images, augmented as in the training, and the plain mean over the batches.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnext.config.schema import Config
from resnext.data.augment import build_train_transforms, normalize
from resnext.data.cores import count_workers
from resnext.data.dataset import TrainImages
from resnext.data.erasing import erase
from resnext.data.index import ImageIndex
from resnext.data.loader import MAX_EVAL_BATCH, ImageLoader, prepare_reader
from resnext.data.sampler import RankBatches, derive_seed
from resnext.models.freezing import find_frozen_modules
from resnext.task.mixing import draw_mix, mix_images

MAX_IMAGES = 50_000  # all of CIFAR; of ImageNet, as many as its validation images, so that the pass takes as long


def find_batch_norms(network: nn.Module, frozen: Sequence[str] = ()) -> list[_BatchNorm]:
    """The batch norms that hold statistics, without those in parts that `frozen` names: a training keeps theirs."""
    kept = {id(module) for module in find_frozen_modules(network, frozen)}
    norms = (module for module in network.modules() if isinstance(module, _BatchNorm) and id(module) not in kept)
    return [norm for norm in norms if norm.running_mean is not None]


@torch.no_grad()
def recompute_statistics(network: nn.Module, batches: Iterable[Tensor], frozen: Sequence[str] = ()) -> int:
    """Sets the statistics of the batch norms to their mean over `batches`. Returns the number of images.

    Only the batch norms are in training mode during this: dropout stays off, as in the evaluation. Leaves `network` in
    evaluation mode.
    """
    norms = find_batch_norms(network.eval(), frozen)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative mean
        norm.train()
    count = 0
    for images in batches:
        network(images)
        count += len(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return count


def training_batches(
    config: Config, train: ImageIndex, device: torch.device, advance: Callable[[int], None]
) -> Iterator[Tensor]:
    """Images float32 [N, 3, size, size] as the last epoch of the training has them, at most MAX_IMAGES.

    They have the same order, augmentation, erasing and size. mixup and CutMix have other random draws, which follow
    from `config.seed`. A batch has the size of the global batch, at most MAX_EVAL_BATCH; an incomplete last batch is
    left out.
    """
    recipe, size = config.recipe, min(config.recipe.batch_size, MAX_EVAL_BATCH)
    order = RankBatches(config.seed, len(train), size, 0, 1, 1, recipe.augmentation.repeats)
    order.set_epoch(recipe.epochs - 1)
    transforms = build_train_transforms(recipe, config.data)
    loader = ImageLoader(
        TrainImages(train, None, recipe, config.data, transforms, config.seed),
        batch_sampler=list(itertools.islice(order, max(1, MAX_IMAGES // size))),
        worker_timeout=config.data.worker_timeout,
        num_workers=count_workers(config.data),
        pin_memory=device.type == "cuda",
        worker_init_fn=prepare_reader,
    )
    for number, ((pixels, _targets, *erasing), _skipped) in enumerate(loader):
        images = normalize(pixels.to(device, non_blocking=True), config.data)
        if erasing:
            images = erase(images, erasing[0], recipe.augmentation.erasing_mode)
        if recipe.mixing.on:
            images = mix_images(images, draw_mix(recipe.mixing, *images.shape[2:], derive_seed(config.seed, number)))
        yield images
        advance(len(images))
