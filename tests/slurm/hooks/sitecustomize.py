"""Python imports this file first in every process of a test's jobs. It slows them down or pauses them for the test.

SLOW_STEP       additional seconds for every training step, in a job's first start
PAUSE           PLACE:RANK:SECONDS, in a job's first start; PLACE is import, step N, validation or end; RANK may be *
PAUSE_MARKER    a file that is created when the pause begins
DIGESTS         a folder to which each rank writes digests of its gradients and weights
"""

import hashlib
import importlib.abc
import importlib.machinery
import os
import sys
import time
from pathlib import Path

RANK = os.environ.get("SLURM_PROCID", "0")
IS_FIRST = os.environ.get("SLURM_RESTART_COUNT", "0") == "0"


def pause(place):
    where, rank, seconds = os.environ.get("PAUSE", "::").split(":")
    if IS_FIRST and where == place and rank in ("*", RANK):
        Path(os.environ["PAUSE_MARKER"]).touch()
        time.sleep(float(seconds))


def before(owner, name, action):
    """Calls `action` with the arguments of owner.name before each call of it."""
    original = getattr(owner, name)

    def both(*arguments, **options):
        action(*arguments, **options)
        return original(*arguments, **options)

    setattr(owner, name, both)


def write_digest(name, tensors):
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().numpy().tobytes())
    with open(Path(os.environ["DIGESTS"]) / f"{name}-{RANK}", "a") as file:
        file.write(digest.hexdigest() + "\n")


def patch_task(module):
    task = module.ClassificationTask

    def slow(self, batch, batch_idx):
        pause(f"step {self.global_step}")
        time.sleep(float(os.environ.get("SLOW_STEP", 0)) * IS_FIRST)

    before(task, "training_step", slow)
    before(task, "on_validation_start", lambda self: pause("validation"))
    if "DIGESTS" in os.environ:
        weights = lambda self: self.network.parameters()  # noqa: E731
        before(task, "on_before_optimizer_step", lambda self, _: write_digest("grads", [p.grad for p in weights(self)]))
        before(task, "on_validation_start", lambda self: write_digest("weights", weights(self)))


PATCHES = {
    "resnext.task.classification": patch_task,
    "resnext.training.messages": lambda module: before(module, "log_result", lambda *_: pause("end")),
}


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            if name == "resnext.task.classification":
                pause("import")
            execute(module)
            PATCHES[name](module)

        spec.loader.exec_module = execute_and_patch
        return spec


sys.meta_path.insert(0, Finder())
