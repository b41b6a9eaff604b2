"""The W&B logger of a run: online with an API key and a server that answers, else offline. It never fails the run.

All starts of a run are one W&B run without gaps. W&B sends with a delay: a killed process has not sent the data of its
last seconds. So each start first sends the rows of metrics.csv and perf.csv that the server lacks, and an offline start
stores the whole run so far. A step that is sent twice has the same values both times. The system metrics of older
offline starts are removed with their folders (wandb_folders.py).
"""

import http.client
import logging
import os
import shlex
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from resnext.config.redaction import USERINFO, redact_urls
from resnext.config.schema import Config
from resnext.errors import first_line
from resnext.loggers.rows import read_logged, shared_config
from resnext.loggers.wandb_folders import STEP, remove_redundant_folders

PROBE_SECONDS = 3.0
INIT_SECONDS = 8.0
FINISH_SECONDS = 60.0

log = logging.getLogger(__name__)


def is_wanted(mode: str) -> bool:
    """False if the configuration or W&B's own WANDB_MODE disables W&B."""
    return "disabled" not in (mode, os.environ.get("WANDB_MODE"))


def build_wandb_logger(config: Config, folder: Path, wandb_id: str) -> WandbLogger:
    """Starts or continues the W&B run `wandb_id`. Data that cannot be sent stays in folder/wandb for `wandb sync`.

    The CSV files in `folder` must hold only rows that this start does not compute again.
    """
    wandb.setup(wandb.Settings(silent=True))
    obstacle = find_obstacle(config.logger.mode)
    if obstacle is None:
        try:
            return _start(config, folder, wandb_id, offline=False)
        except Exception as error:  # any error of W&B: a log must not end a training
            obstacle = _describe(error)
            wandb.teardown()
    logger = _start(config, folder, wandb_id, offline=True)
    remove_redundant_folders(Path(logger.experiment.dir).parent, wandb_id)
    log.info(
        "W&B       offline: %s\n          later: .venv/bin/wandb sync %s",
        obstacle,
        shlex.quote(f"{folder}/wandb/latest-run"),
    )
    return logger


def send_summary(summary: dict[str, Any]) -> None:
    """Sends summary.json to the summary of the W&B run: status, speed, and the best epoch's results as `best/…`.

    Without this, the summary has only the last value of each metric.
    """
    if wandb.run is None:
        return
    best = {name: value for name, value in summary.items() if name.startswith("val") and value is not None}
    named = {f"best/{name}": value for name, value in best.items() if name != "val_images"}
    if "best_epoch" in summary:
        named["best/epoch"] = summary["best_epoch"]
    plain = ("status", "steps", "images_per_sec", "val_images", "stopped")
    wandb.run.summary.update(named | {name: summary[name] for name in plain if name in summary})


def send_alert(title: str, text: str, *, is_bad: bool) -> None:
    """W&B sends it by mail or Slack, as its user has set there. Does nothing if W&B is off or offline."""
    if wandb.run is not None and not wandb.run.offline:
        wandb.run.alert(title, text, level="ERROR" if is_bad else "INFO")


def seconds_to_finish() -> float:
    """The maximum time of `wandb.finish`: only an online run waits for a server."""
    return FINISH_SECONDS if wandb.run is not None and not wandb.run.offline else 0.0


def find_obstacle(mode: str) -> str | None:
    """The reason why W&B cannot be online, or None if it can. Takes at most 3 seconds."""
    if mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return "as requested"
    try:
        url = USERINFO.sub("", str(wandb.setup().settings.base_url))
        if not wandb.login(prompt=False, verify=False):
            return "no API key"
    except Exception as error:  # a malformed key or address
        return _describe(error)
    return _within(PROBE_SECONDS, lambda: _probe(url))


def _start(config: Config, folder: Path, wandb_id: str, *, offline: bool) -> WandbLogger:
    settings = wandb.Settings(
        mode="offline" if offline else "online",
        init_timeout=INIT_SECONDS,
        finish_timeout=FINISH_SECONDS,
        silent=True,
        console="off",
    )
    logger = WandbLogger(
        name=config.run,
        save_dir=folder,
        id=wandb_id,
        project=config.logger.project,
        entity=config.logger.entity,
        resume=None if offline else "allow",
        config=shared_config(config),
        settings=settings,
    )
    sent = logger.experiment.summary.get(STEP)  # starts the W&B run now, so that its errors are raised here
    _send_again(logger, folder, from_step=int(sent or 0))
    return logger


def _send_again(logger: WandbLogger, folder: Path, from_step: int) -> None:
    """Sends the CSV rows from `from_step` on again: W&B may have only a part of the rows of this step."""
    for step, row in read_logged(folder):
        if step >= from_step:
            logger.log_metrics(row, step=step)


def _probe(url: str) -> str | None:
    """The reason why the server at `url` does not answer, or None. Uses the proxies of the environment.

    A server error (status 500 and above) does not count as an answer.
    """
    try:
        urllib.request.urlopen(f"{url}/healthz", timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
        return f"{url}: {error}" if error.code >= 500 else None
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{url}: {getattr(error, 'reason', error)}"
    return None


def _within(seconds: float, probe: Callable[[], str | None]) -> str | None:
    """The result of `probe`, or a text if it takes longer. Resolving a host name has no time-out of its own."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(probe()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else f"no answer in {seconds:g} s"


def _describe(error: Exception) -> str:
    return redact_urls(first_line(error))[:100]  # in this order: half of an address would keep its password
