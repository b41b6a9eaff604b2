"""LocalWorkers: the runs of a sweep as processes of this machine, each with its share of the devices and cores."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnext.config.sweep import SweepConfig
from resnext.errors import UserError
from resnext.runtime.parent_death import die_with_parent
from resnext.sweep.command import last_line, output_file, start_command
from resnext.sweep.schedule import Job
from resnext.terminal import pluralize

SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Ended:
    """A job that has ended. `error` is one line, empty if the run has reached what it was asked to."""

    job: Job
    place: int
    began: float
    error: str = ""


@dataclass
class _Worker:
    job: Job
    process: subprocess.Popen[bytes]
    began: float


class LocalWorkers:
    """`sweep.parallel` places on this machine.

    Args:
        lock: a descriptor that every process keeps open until it ends.

    Raises:
        UserError: if there are more places than GPUs.
    """

    waits = True

    def __init__(self, config: SweepConfig, folder: Path, lock: int, gpus: Sequence[str]) -> None:
        self.config, self.folder, self.lock = config, folder, lock
        self._shares = share_devices(config.places, gpus)
        self._workers: dict[int, _Worker] = {}

    @property
    def training(self) -> set[str]:
        return {worker.job.run.name for worker in self._workers.values()}

    def has_place(self) -> bool:
        return len(self._workers) < self.config.places

    def start(self, job: Job) -> None:
        place = min(set(range(self.config.places)) - set(self._workers))
        cores, environment = self._shares[place]
        parent = os.getpid()

        def prepare() -> None:
            os.sched_setaffinity(0, cores)
            die_with_parent(parent, signal.SIGTERM)  # it saves first

        began, process = time.time(), start_command(self.config, self.folder, job, self.lock, environment, prepare)
        self._workers[place] = _Worker(job, process, began)

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that have ended, after at most `seconds`."""
        deadline = time.monotonic() + seconds
        while not (ended := [place for place, each in self._workers.items() if each.process.poll() is not None]):
            if not self._workers or time.monotonic() >= deadline:
                return []
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return [self._end(place) for place in ended]

    def stop(self) -> None:
        """Asks every run to save and end, and waits for them. A second Ctrl-C ends this process, and so the wait."""
        if self._workers:
            print(f"{pluralize(len(self._workers), 'run')} save and end", flush=True)
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in self._workers.values():
            worker.process.wait()
        self._workers.clear()

    def _end(self, place: int) -> Ended:
        worker = self._workers.pop(place)
        code = worker.process.returncode
        return Ended(worker.job, place, worker.began, self._describe(worker.job, code) if code else "")

    def _describe(self, job: Job, code: int) -> str:
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (": out of memory?" if code == -signal.SIGKILL else "")
        return last_line(output_file(self.folder, job)) or f"exit code {code}"


def share_devices(places: int, gpus: Sequence[str]) -> list[tuple[set[int], dict[str, str]]]:
    """The cores and the environment of each place: equal shares of the GPUs and of the cores.

    Raises:
        UserError: if there are GPUs, but fewer than places.
    """
    if gpus and places > len(gpus):
        raise UserError(f"sweep.parallel={places}, but this machine has {len(gpus)} GPUs: give at most that number")
    cores = sorted(os.sched_getaffinity(0))
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, len(cores) // places)))
    shares: list[tuple[set[int], dict[str, str]]] = []
    for place in range(places):
        own = set(cores[place * len(cores) // places : (place + 1) * len(cores) // places])
        own = own or {cores[place % len(cores)]}
        each = len(gpus) // places
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus[place * each : (place + 1) * each])} if gpus else {}
        shares.append((own, {"OMP_NUM_THREADS": threads, **visible}))
    return shares


def find_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in visible.split(",") if each not in ("", "-1", "NoDevFiles")]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]  # CUDA counts from 0
