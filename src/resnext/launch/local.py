"""Trains a run on this machine: in this process, or under torchrun with one process for each device."""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from resnext.errors import Interrupted, RunFailed
from resnext.training.device import count_devices
from resnext.training.fit import fit
from resnext.training.run import Run

SECONDS_TO_SAVE = 600  # a rank may be in a validation when the signal comes; torchrun's own limit is 30


def launch(run: Run) -> None:
    """Trains `run` to its end, and raises what `fit` raises.

    Under torchrun the ranks have sessions of their own, so that a Ctrl-C reaches this process alone, which hands it
    on once. A rank that breaks says why itself; what is raised here has its exit code and no words.
    """
    devices = count_devices(run.config.trainer)
    if devices == 1:
        return fit(run)
    with run.lock():
        pass  # refused here if another process trains the run, before any rank is started
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # ranks speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))  # torchrun would set 1
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=run.path.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        shutdown_timeout=SECONDS_TO_SAVE,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "resnext", "fit", str(run.path))
    except SignalException as error:
        raise Interrupted(int(error.sigval)) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise RunFailed(exit_code=failure.exitcode) from None
        raise RunFailed(f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}") from None
