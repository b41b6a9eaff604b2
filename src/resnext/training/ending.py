"""How a training ends: what summary.json and the error say, and that nothing is waited for without bound."""

import logging
import multiprocessing
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed
import wandb

from resnext.callbacks.last_checkpoint import SaveFailed
from resnext.config.schema import Config
from resnext.errors import Interrupted, RunFailed, UserError, describe_error
from resnext.run.directory import Run
from resnext.runtime.library_messages import is_gloo_failure, is_timeout
from resnext.runtime.signals import NEAR_THE_END
from resnext.runtime.slurm_job import is_slurm_rank, is_under_batch_script
from resnext.runtime.world import World
from resnext.task.finite import NonFiniteLoss

log = logging.getLogger(__name__)


@contextmanager
def keeping_status(run: Run, world: World) -> Iterator[None]:
    """Whatever ends the training inside, summary.json says so, and W&B is not waited for without bound.

    Raises:
        RunFailed: for an error that is neither the user's nor a signal; without words where another rank says why.
    """
    status = "failed"
    try:
        yield
        status = "finished"
    except Interrupted as error:
        status = _status_after(error.signum)
        log.info("interrupted after %d steps; %s", run.summary.get("steps", 0), _what_next(run))
        raise error from None
    except UserError:
        log.error("refused", exc_info=True)
        raise
    except Exception as error:
        log.error("the training broke", exc_info=True)
        if world.size > 1 and _is_said_elsewhere(error, world):
            raise RunFailed from error
        raise RunFailed(f"{_reason(error, run.config)} (traceback in {run.path}/log.txt)") from error
    finally:
        for loader in multiprocessing.active_children():
            loader.kill()  # one that hangs would be waited for at the interpreter's exit
        if world.rank == 0:
            run.update_summary(status=status)
            _finish_wandb(exit_code=0 if status == "finished" else 1)
        if status != "failed" and torch.distributed.is_initialized():
            if is_slurm_rank():
                with suppress(RuntimeError):  # one that died while leaving changes nothing of how this one ends
                    torch.distributed.barrier()  # srun ends rank 0 in the middle of this if another leaves first
            torch.distributed.destroy_process_group()  # at the interpreter's exit its threads may abort the process


def leave_hanging(run: Run, world: World, signum: int) -> None:
    """The last words of a process that hangs in a library while there is nothing to save."""
    log.info("interrupted while waiting for another process; %s", _what_next(run))
    if world.rank == 0:
        run.update_summary(status=_status_after(signum))


def _status_after(signum: int) -> str:
    return "preempted" if signum in NEAR_THE_END else "interrupted"


def _what_next(run: Run) -> str:
    if is_under_batch_script():
        return "the batch script says whether the job goes on"
    return f"`make resume RUN={shlex.quote(str(run.path))}` goes on"


def _finish_wandb(exit_code: int) -> None:
    """Without an error: how the training ended is known by now, and W&B's own process may be gone."""
    try:
        wandb.finish(exit_code=exit_code)
    except Exception as error:
        log.warning("W&B could not finish: %s", describe_error(error))


def _is_said_elsewhere(error: Exception, world: World) -> bool:
    """By rank 0, for what all ranks find out together; by the rank that broke first, if a collective lost its peer."""
    if isinstance(error, NonFiniteLoss | SaveFailed):
        return world.rank > 0
    if isinstance(error, torch.distributed.DistNetworkError | torch.distributed.DistStoreError):
        return world.rank > 0 and not is_timeout(error)  # the store is rank 0's: its own errors nobody else knows
    return _is_of_a_collective(error) and not is_timeout(error)


def _reason(error: Exception, config: Config) -> str:
    if _is_of_a_collective(error) and is_timeout(error):
        minutes = config.trainer.timeout_minutes
        return f"another process has not answered for trainer.timeout_minutes={minutes:g}: it hangs, or is far behind"
    return str(error) if isinstance(error, RunFailed) else describe_error(error)


def _is_of_a_collective(error: Exception) -> bool:
    return isinstance(error, torch.distributed.DistError) or is_gloo_failure(error)
