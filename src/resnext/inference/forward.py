"""Runs networks over sets of images, in this process or in one process for each device."""

import multiprocessing
import os
import pickle
import signal
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from resnext.config.checkpoint_metadata import CheckpointMetadata
from resnext.config.schema import TrainerConfig
from resnext.data.augment import build_eval_transform, normalize
from resnext.data.dataset import Batch, EvalImages
from resnext.data.loader import ImageLoader, prepare_reader
from resnext.data.sampler import Sample
from resnext.errors import RunFailed, UserError, describe_error, picklable
from resnext.inference.image_sets import ImageSet
from resnext.inference.network import Choice, build_networks, find_step, read_weights
from resnext.inference.outputs import Outputs, check_finite
from resnext.registry import load_extensions
from resnext.runtime.parent_death import die_with_parent

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

Numbered = tuple[int, dict[str, Outputs]]  # the number of a batch, and the predictions of each network


class EvaluationJob(NamedTuple):
    """All that a process needs to compute its batches.

    A batch has consecutive images of one set. The batches are the same for any number of processes, and so is what a
    network computes for an image.

    Attributes:
        checkpoint, step: the file with the weights, and the optimizer steps done; None if the file does not tell it.
        choice: which of its weights: `ema`, `raw` or `both`.
        trainer: with resolved `auto` values; its accelerator, precision, channels_last and deterministic are used.
        metrics: names of recipe.evaluation.metrics, which need the logits of all images.
        flip: whether to average the logits of each image and of its mirror image.
        workers: DataLoader workers of each process.
    """

    checkpoint: Path
    step: int | None
    choice: Choice
    metadata: CheckpointMetadata
    sets: list[ImageSet]
    trainer: TrainerConfig
    metrics: tuple[str, ...]
    batch_size: int
    flip: bool
    workers: int
    worker_timeout: float

    def batches(self) -> list[tuple[int, range]]:
        """The number of the set and the images of each batch."""
        return [
            (number, range(first, min(first + self.batch_size, len(each.listed))))
            for number, each in enumerate(self.sets)
            for first in range(0, len(each.listed), self.batch_size)
        ]


def compute_outputs(job: EvaluationJob, processes: int) -> Iterator[Numbered]:
    """Yields the predictions for each batch, in any order.

    Raises:
        UserError: if the weights do not fit, an image cannot be read, or a batch does not fit in memory.
        RunFailed: if a process was killed.
    """
    return _compute_part(job, 0, 1) if processes == 1 else _compute_in_processes(job, processes)


@torch.inference_mode()
def _compute_part(job: EvaluationJob, process: int, processes: int) -> Iterator[Numbered]:
    """The batches of one process: every `processes`-th, from its own number on."""
    gpu = job.trainer.accelerator == "gpu"
    device = torch.device("cuda", process) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = gpu and not job.trainer.deterministic  # as in the training
    content = read_weights(job.checkpoint)
    if find_step(content) != job.step:
        raise RunFailed(f"{job.checkpoint} was replaced meanwhile, by a run that is training: evaluate it again")
    networks = build_networks(job.checkpoint, content, job.metadata, job.choice)
    for network in networks.values():
        network.to(device)
        if job.trainer.channels_last:
            network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    numbered = list(enumerate(job.batches()))[process::processes]
    images = ImageLoader(
        _Images(job),
        batch_sampler=([(number, image) for image in batch] for _, (number, batch) in numbered),
        worker_timeout=job.worker_timeout,
        num_workers=job.workers,
        pin_memory=gpu,
        worker_init_fn=prepare_reader,
    )
    dtype = AUTOCAST.get(job.trainer.precision)
    autocast = torch.autocast(device.type, dtype) if dtype else nullcontext()
    keeps = bool(job.metrics)
    for (batch_number, (number, batch)), (pixels, _) in zip(numbered, images, strict=True):
        targets, allowed = job.sets[number].for_batch(batch, device)
        with autocast:
            pixels = pixels.to(device, non_blocking=True)
            found = {name: _logits(network, pixels, job) for name, network in networks.items()}
        yield batch_number, {name: Outputs.of(each, targets, allowed, keeps=keeps) for name, each in found.items()}


class _Images(Dataset[Any]):
    """(set, image) of a batch → pixels uint8 [N, size, size, 3], labels int64 [N]."""

    def __init__(self, job: EvaluationJob) -> None:
        transform = build_eval_transform(job.metadata.evaluation, job.metadata.image_size)
        self.sets = [EvalImages(each.listed, None, transform) for each in job.sets]

    def __getitems__(self, images: list[tuple[int, int]]) -> Batch | Exception:
        return self.sets[images[0][0]].__getitems__([Sample(0, image) for _, image in images])


def _logits(network: nn.Module, pixels: Tensor, job: EvaluationJob) -> Tensor:
    """Raises UserError if the network cannot compute them, or if they are not finite."""
    try:
        images = normalize(pixels, job.metadata)
        logits = network(images)
        logits = (logits + network(images.flip(3))) / 2 if job.flip else logits
        check_finite(logits, job.checkpoint)
        return logits
    except torch.OutOfMemoryError as error:
        raise UserError(f"{len(pixels)} images do not fit in the memory of a GPU: give a lower --batch-size") from error
    except (AssertionError, RuntimeError) as error:
        size = job.metadata.image_size
        raise UserError(f"{job.checkpoint} cannot compute images of {size} pixels: {describe_error(error)}") from error


def _compute_in_processes(job: EvaluationJob, processes: int) -> Iterator[Numbered]:
    """Each process has a pipe of its own: the end of a killed process ends its pipe, even within a message.

    The job goes through a file: `start` would wait until a process has read it, without end if the process is dead.
    """
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    parts: dict[Any, BaseProcess] = {}
    file = tempfile.NamedTemporaryFile(prefix="resnext-", suffix=".job")
    try:
        pickle.dump(job, file)
        file.flush()
        for number in range(processes):
            reader, writer = context.Pipe(duplex=False)
            part = context.Process(target=_send_part, args=(file.name, number, processes, os.getpid(), writer))
            part.start()
            parts[reader] = part
            writer.close()
        unfinished = dict(parts)
        while unfinished:
            for reader in connection.wait(list(unfinished)):
                if (found := _receive(reader, unfinished)) is not None:
                    yield found
    finally:
        for reader, part in parts.items():
            part.kill()
            part.join()
            reader.close()
        file.close()


def _receive(reader: Any, unfinished: dict[Any, BaseProcess]) -> Numbered | None:
    """The next outputs of a process; None at its end. Raises its error, or RunFailed if it was killed."""
    try:
        found = reader.recv()
    except (EOFError, OSError):
        part = unfinished.pop(reader)
        part.join()
        if code := part.exitcode:
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise RunFailed(f"a process of the evaluation {ended}: if memory ran out, give a lower --devices") from None
        return None
    if isinstance(found, Exception):
        raise found
    return found


def _send_part(file: str, process: int, processes: int, parent: int, writer: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and kills this process
    die_with_parent(parent)
    torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        load_extensions()
        job = pickle.loads(Path(file).read_bytes())
        for found in _compute_part(job, process, processes):
            writer.send(found)
    except Exception as error:
        writer.send(picklable(error, "a process of the evaluation"))
