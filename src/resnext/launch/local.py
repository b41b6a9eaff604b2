"""Trains a run on this machine: in this process, or under torchrun with one process for each device."""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from resnext.errors import Interrupted, RunFailed
from resnext.run.directory import Run
from resnext.runtime.device import count_devices
from resnext.runtime.logs import logging_to
from resnext.runtime.parent_death import LAUNCHER
from resnext.runtime.signals import acknowledged
from resnext.training.fit import fit
from resnext.training.parts import Parts

SECONDS_TO_SAVE = (
    600  # a rank may be far from its next optimizer step when the signal comes; torchrun's own limit is 30 s
)

log = logging.getLogger(__name__)


def launch(run: Run, parts: Parts | None = None) -> None:
    """Trains `run` to its end. Raises the errors of `fit`. `parts`: the parts that this process has already built.

    Uses torchrun for several devices or with trainer.max_restarts. If a process fails, all processes are restarted
    from the newest checkpoint, at most trainer.max_restarts times. A user's mistake causes no restart.
    """
    trainer = run.config.trainer
    devices = count_devices(trainer)
    if devices == 1 and not trainer.max_restarts:
        return fit(run, parts=parts)
    with run.lock():
        pass  # fails here, before any rank starts, if another process trains the run
    for restart in range(1, trainer.max_restarts + 1):
        try:
            return _run_ranks(run, devices)
        except RunFailed as error:
            if error.exit_code == 2:  # a user's mistake: a restart does not help
                raise
            with logging_to(run.path, rank=0):
                reason = str(error) or "a process failed"
                log.warning("%s: restart %d of trainer.max_restarts=%d", reason, restart, trainer.max_restarts)
    return _run_ranks(run, devices)


def _run_ranks(run: Run, devices: int) -> None:
    """Runs the ranks under torchrun.

    Each rank has its own session: a Ctrl-C reaches only this process, which forwards it once. A rank that fails prints
    its own error, so RunFailed has its exit code and an empty message.
    """
    elastic = logging.getLogger("torch.distributed.elastic")  # silent: the ranks print their own errors
    elastic.addHandler(logging.NullHandler())
    elastic.propagate = False  # a level is not enough: the loggers of its modules have their own levels
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2")
    os.environ[LAUNCHER] = str(os.getpid())
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
    start = ("--start", str(run.start)) if run.start is not None else ()
    try:
        with acknowledged():
            elastic_launch(config, sys.executable)("-m", "resnext", "fit", str(run.path), *start)
    except SignalException as error:
        raise Interrupted(int(error.sigval)) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise RunFailed(exit_code=failure.exitcode) from None
        raise RunFailed(f"rank {rank} was killed by {signal.Signals(-failure.exitcode).name}") from None
