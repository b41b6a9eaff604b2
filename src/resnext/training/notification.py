"""Tells somebody how a run ends, or that it stalls: by notify.command and by W&B. Never ends or blocks a training."""

import logging
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from resnext.errors import describe_error
from resnext.loggers.wandb import send_alert
from resnext.run.directory import Run
from resnext.training.messages import describe_best

SECONDS = 30.0  # that the command may take

log = logging.getLogger(__name__)


def notify(run: Run, event: str, message: str) -> None:
    """`event` is finished, failed, nonfinite or stalled; `message` is one line, empty for the results of the run.

    Rank 0 calls this function.
    """
    try:
        message = message or describe_best(run)
        send_alert(f"{run.path.name}: {event}", message, is_bad=event != "finished")
        if (command := run.config.notify.command) is not None:
            run_command(command, read_facts(run) | {"RESNEXT_EVENT": event, "RESNEXT_MESSAGE": message}, run.path)
    except Exception as error:  # a damaged file, an error of W&B: the result of the training is already known
        log.warning("the notification of the event `%s` could not be sent: %s", event, describe_error(error))


def read_facts(run: Run) -> dict[str, str]:
    """Environment variables with the state of the run; empty where it is not known."""
    summary = run.summary
    facts = {
        "run": run.path.absolute(),
        "name": run.path.name,
        "status": summary["status"],
        "step": run.step,
        "steps": run.planned_steps or "",
        "epoch": summary.get("epochs", ""),
        "best_epoch": summary.get("best_epoch", ""),
        "top1": _percent(summary.get(run.config.recipe.best_by)),
        "top5": _percent(summary.get(run.config.recipe.best_by.replace("top1", "top5"))),
    }
    return {f"RESNEXT_{name.upper()}": str(value) for name, value in facts.items()}


def run_command(command: str, facts: dict[str, str], folder: Path) -> None:
    """Runs a line of the shell in its own session for at most SECONDS. Its output goes to folder/log.txt."""
    with open(folder / "log.txt", "ab") as output:
        process = subprocess.Popen(
            command,
            shell=True,
            env=os.environ | {name: value.replace("\0", "") for name, value in facts.items()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.warning("notify.command took longer than %g s and was killed", SECONDS)
        return
    if code:
        log.warning("notify.command failed with exit code %d; its output is in %s/log.txt", code, folder)


def _percent(accuracy: float | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy:.2f}"
