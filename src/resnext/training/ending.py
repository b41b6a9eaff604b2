"""The end of a training: writes the status to summary.json, describes the error, and limits the time for ending."""

import logging
import multiprocessing
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed
import wandb

from resnext.callbacks.last_checkpoint import SaveFailed
from resnext.config.schema import Config
from resnext.data.worker_watchdog import LoaderHung
from resnext.errors import Interrupted, Paused, RunFailed, UserError, describe_error
from resnext.loggers.wandb import send_summary
from resnext.run.directory import Run
from resnext.runtime.library_messages import is_gloo_failure, is_timeout
from resnext.runtime.signals import TIME_LIMIT_SIGNALS
from resnext.runtime.slurm_job import is_slurm_rank, is_under_batch_script
from resnext.runtime.world import World
from resnext.task.finite import NonFiniteLoss
from resnext.terminal import pluralize
from resnext.training.notification import notify

log = logging.getLogger(__name__)


@contextmanager
def keeping_status(run: Run, world: World) -> Iterator[None]:
    """Records in summary.json how the training ends, and ends W&B within a time limit.

    Raises:
        RunFailed: for an error that is neither a user's mistake nor a signal. Its message is empty if another rank
            reports the reason.
    """
    status, event, message = "failed", "failed", ""
    try:
        yield
        status = event = "finished"
    except Paused:
        status, event = "paused", ""
        epochs, again = pluralize(run.summary.get("epochs", 0), "epoch"), shlex.quote(str(run.path))
        log.info("paused after %s; `resnext resume %s trainer.pause_after_epochs=null` goes on", epochs, again)
        raise
    except Interrupted as error:
        status, event = _status_after(error.signum), ""
        done = pluralize(run.summary.get("steps", 0), "step")
        log.info("interrupted after %s; %s", done, _what_next(run))
        raise error from None
    except UserError as error:
        message = str(error)
        log.error("the training was refused", exc_info=True)
        raise
    except Exception as error:
        log.error("the training failed", exc_info=True)
        event, message = _find_event(error), "another process failed"
        if world.size > 1 and _is_reported_elsewhere(error, world):
            raise RunFailed from error
        message = _reason(error, run.config)
        raise RunFailed(f"{message} (traceback in {run.path}/log.txt)") from error
    finally:
        for worker in multiprocessing.active_children():
            worker.kill()  # else Python waits at its exit for a worker that hangs
        if world.rank == 0:
            _report_end(run, status, event, message)
        if status != "failed" and torch.distributed.is_initialized():
            if is_slurm_rank():
                with suppress(RuntimeError):  # another rank died at its exit: ignore it
                    torch.distributed.barrier()  # if another rank exits first, srun kills rank 0 before it is done
            torch.distributed.destroy_process_group()  # else its threads may abort the process at Python's exit


def report_interrupted_wait(run: Run, world: World, signum: int) -> None:
    """Logs and records that a signal ends this process, which hangs in a library and has nothing to save."""
    log.info("interrupted while waiting for another process; %s", _what_next(run))
    if world.rank == 0:
        run.update_summary(status=_status_after(signum))


def _status_after(signum: int) -> str:
    return "preempted" if signum in TIME_LIMIT_SIGNALS else "interrupted"


def _what_next(run: Run) -> str:
    if is_under_batch_script():
        return "the batch script prints whether the job continues"
    return f"`make resume RUN={shlex.quote(str(run.path))}` continues the run"


def _report_end(run: Run, status: str, event: str, message: str) -> None:
    """Writes summary.json, tells somebody of an `event`, and ends W&B."""
    run.update_summary(status=status)
    if event:
        notify(run, event, message)
    _finish_wandb(run, exit_code=0 if status in ("finished", "paused") else 1)


def _find_event(error: Exception) -> str:
    if isinstance(error, NonFiniteLoss):
        return "nonfinite"
    is_stall = isinstance(error, LoaderHung) or (_is_of_a_collective(error) and is_timeout(error))
    return "stalled" if is_stall else "failed"


def _finish_wandb(run: Run, exit_code: int) -> None:
    """Raises no error: the result of the training is already known, and W&B's own process may have ended."""
    try:
        send_summary(run.summary)
        wandb.finish(exit_code=exit_code)
    except Exception as error:
        log.warning("W&B could not finish: %s", describe_error(error))


def _is_reported_elsewhere(error: Exception, world: World) -> bool:
    """Whether another rank reports the reason.

    If all ranks detect an error together, rank 0 reports it. If a collective fails because a rank is lost, the rank
    that failed first reports its own error.
    """
    if isinstance(error, NonFiniteLoss | SaveFailed):
        return world.rank > 0
    if isinstance(error, torch.distributed.DistNetworkError | torch.distributed.DistStoreError):
        return world.rank > 0 and not is_timeout(error)  # rank 0 hosts the store: only rank 0 knows why it failed
    return _is_of_a_collective(error) and not is_timeout(error)


def _reason(error: Exception, config: Config) -> str:
    if _is_of_a_collective(error) and is_timeout(error):
        minutes = config.trainer.timeout_minutes
        return f"another process has not answered for trainer.timeout_minutes={minutes:g}: it hangs, or is far behind"
    return str(error) if isinstance(error, RunFailed) else describe_error(error)


def _is_of_a_collective(error: Exception) -> bool:
    return isinstance(error, torch.distributed.DistError) or is_gloo_failure(error)
