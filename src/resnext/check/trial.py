"""Runs steps of a training in a process of its own: memory that runs out ends that process, and not the check."""

import logging
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from resnext.check.machine import free_memory
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.errors import RunFailed, picklable
from resnext.registry import load_extensions
from resnext.runtime.logs import quiet_lightning
from resnext.runtime.parent_death import die_with_parent
from resnext.runtime.signals import StopRequest
from resnext.training.parts import build_parts

USABLE = 0.9  # of the free memory
SECONDS = 20.0  # of one step


class OutOfMemory(Exception):
    """The kernel killed the process, or the GPU has no memory left."""


class MemoryTrial(NamedTuple):
    """The most memory that a step takes with micro-batches of `micro` images."""

    micro: int
    bytes: int
    seconds: float


class Trial:
    """Asks a process, which builds the training's parts once, and is started again after it was killed.

    `usable_bytes`: of the memory that was free before the first start; `devices` CPU processes share it.
    """

    def __init__(self, config: Config, devices: int = 1) -> None:
        gpu = config.trainer.accelerator == "gpu"
        self.usable_bytes = USABLE * free_memory(gpu=gpu) / (1 if gpu else devices)
        self._config = config
        self._process: Any = None

    def ask(self, function: str, *arguments: Any) -> Any:
        """The result of a method of Steps.

        Raises:
            OutOfMemory: also for a process that was killed.
            UserError, RunFailed: the errors of the method.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send((function, arguments))
            found = self._connection.recv()
        except (EOFError, OSError):
            code = self.end()
            if code == -signal.SIGKILL:
                raise OutOfMemory from None
            raise RunFailed(f"the process of the trial ended with code {code}") from None
        if isinstance(found, Exception):
            raise found
        return found

    def end(self) -> int | None:
        """Kills the process. Returns its exit code."""
        if (process := self._process) is None:
            return None
        self._process = None
        process.kill()
        process.join()
        self._connection.close()
        return process.exitcode

    def _start(self) -> None:
        sys.warnoptions.append("ignore:resource_tracker")  # of multiprocessing: a killed process leaves semaphores
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork, nor do OpenMP's threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._config, theirs, os.getpid()))
        self._process.start()
        theirs.close()


@contextmanager
def trial(config: Config, devices: int = 1) -> Iterator[Trial]:
    """The process is killed at the end, and at Ctrl-C. Raises Interrupted at a signal."""
    made = Trial(config, devices)
    with StopRequest().received(deferred=False):
        try:
            yield made
        finally:
            made.end()


def find_largest(trial: Trial, sizes: list[int]) -> tuple[list[MemoryTrial], int]:
    """Measures the memory of growing micro-batches, and stops before it is full.

    Memory grows linearly with the number of images: from the third size on, a size is tried only if it is expected to
    fit. A size that would take more than SECONDS is not tried; its memory is calculated.

    Returns:
        The measurements, and the largest of `sizes` that fits; 0 if none does.
    """
    done: list[MemoryTrial] = []
    fits = 0
    for micro in sizes:
        if len(done) > 1:
            if expect_bytes(done, micro) > trial.usable_bytes:
                break
            if done[-1].seconds * micro / done[-1].micro > SECONDS:
                fits = micro
                continue
        try:
            done.append(MemoryTrial(micro, *trial.ask("peak_bytes", micro)))
        except OutOfMemory:
            break
        fits = micro
    return done, fits


def expect_bytes(done: list[MemoryTrial], micro: int) -> float:
    """The memory for `micro` images, on the line through the last two measurements."""
    before, last = done[-2:]
    slope = max(0.0, (last.bytes - before.bytes) / (last.micro - before.micro))
    return last.bytes + slope * (micro - last.micro)


def _serve(config: Config, connection: Any, parent: int) -> None:
    """The process of the trial: builds the training's parts, then answers each request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and kills this process
    die_with_parent(parent)
    _silence()
    try:
        load_extensions()
        from resnext.check.steps import Steps  # imports Lightning

        steps = Steps(config, build_parts(config, *load_images(config.data)))
        while True:
            function, arguments = connection.recv()
            connection.send(_answer(steps, function, arguments))
    except EOFError:  # the parent has ended the trial
        return
    except Exception as error:
        connection.send(picklable(error, "the trial"))


def _answer(steps: Any, function: str, arguments: tuple[Any, ...]) -> Any:
    try:
        return getattr(steps, function)(*arguments)
    except (torch.OutOfMemoryError, MemoryError):
        return OutOfMemory()
    except Exception as error:
        return picklable(error, "the trial")


def _silence() -> None:
    """Everything that libraries print: the check prints its own lines."""
    quiet_lightning()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
