"""What a process does at the first signal and at a second one, from its start to its end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from resnext.errors import Interrupted
from resnext.runtime.signals import SIGNALS, StopRequest
from resnext.runtime.slurm_job import tell_batch_script


def test_the_first_signal_is_recorded_and_the_old_handlers_are_restored():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    stop = StopRequest()
    with stop.received(deferred=True):
        for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR2):
            signal.raise_signal(signum)
    assert stop.signum == signal.SIGUSR1
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_a_signal_ends_a_process_with_nothing_to_save():
    stop = StopRequest()
    with pytest.raises(Interrupted) as interruption, stop.received(deferred=False):
        signal.raise_signal(signal.SIGUSR2)
    assert interruption.value.signum == signal.SIGUSR2
    with (
        pytest.raises(Interrupted),
        stop.received(deferred=False),
    ):  # a signal that came earlier, while torch was imported
        pytest.fail("this is not reached")
    stop = StopRequest()
    with stop.received(deferred=False):
        stop.defer()
        signal.raise_signal(signal.SIGTERM)
    assert stop.signum == signal.SIGTERM


AGAIN = "; Ctrl-C again stops without saving\n"
ENDS = "; Ctrl-C again ends it at once\n"


@pytest.mark.parametrize(
    ("saves", "signum", "line"),
    [
        (True, signal.SIGINT, f"saving after this step{AGAIN}"),
        (False, signal.SIGINT, f"stopping{ENDS}"),
        (True, signal.SIGUSR1, "SIGUSR1: saving after this step\n"),
        (False, signal.SIGTERM, "SIGTERM: stopping\n"),
    ],
)
def test_the_first_signal_is_acknowledged(saves: bool, signum: int, line: str, capfd: pytest.CaptureFixture[str]):
    stop = StopRequest()
    with suppress(Interrupted), stop.received(deferred=saves):
        if saves:
            stop.defer()
        signal.raise_signal(signum)
        signal.raise_signal(signal.SIGUSR2)
    assert capfd.readouterr().err == line


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"},
        {"RANK": "0", "RESNEXT_LAUNCHER": "1"},  # the launcher has printed it
    ],
)
def test_only_one_process_of_a_run_prints(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stop = StopRequest()
    with stop.received(deferred=True):
        signal.raise_signal(signal.SIGTERM)
    assert stop.signum == signal.SIGTERM
    assert capfd.readouterr().err == ""


def test_a_worker_prints_nothing(capfd: pytest.CaptureFixture[str]):
    """A DataLoader worker is forked with the rank's handler, and a Ctrl-C on the terminal also reaches it."""
    with StopRequest().received(deferred=False):
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("context", "code", "said"),
    [
        ("StopRequest().received(deferred=True)", -signal.SIGINT, f"stopping{ENDS}"),
        (
            "acknowledged()",
            130,
            f"stopping; the training is saved after this step{AGAIN}stopped without saving\n",
        ),
    ],
)
def test_a_second_ctrl_c_ends_the_process(context: str, code: int, said: str):
    """The ranks of a launcher are killed with it (test_parent_death.py)."""
    script = (
        "import signal, time; from resnext.runtime.signals import StopRequest, acknowledged\n"
        "signal.signal(signal.SIGINT, lambda *_: None)  # as torchrun's handler, which waits for the ranks\n"
        f"with {context}:\n"
        "    for _ in range(2): signal.raise_signal(signal.SIGINT); time.sleep(0.5)\n"
        "    time.sleep(60)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (code, said)


def test_a_late_signal_does_not_end_a_finished_process():
    script = (
        "import signal; from resnext.runtime.signals import StopRequest\n"
        "with StopRequest().received_to_the_end(deferred=True): pass\n"
        "signal.raise_signal(signal.SIGUSR1); signal.raise_signal(signal.SIGTERM); print('alive')"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "alive\n")


@pytest.mark.parametrize(("deferred", "code"), [(False, 143), (True, -signal.SIGKILL)])
def test_a_signal_ends_a_process_that_hangs_in_a_library(deferred: bool, code: int):
    """As in init_process_group, where Python's own handlers do not run. A deferred signal waits for the library."""
    script = (
        "import ctypes; from resnext.runtime.signals import StopRequest\n"
        "stop = StopRequest()\n"
        f"with stop.received(deferred={deferred}),"
        "     stop.ends_hanging_process(lambda signum: print('ended by', signum, flush=True)):\n"
        "    print('ready', flush=True); lock = ctypes.create_string_buffer(64)\n"
        "    while True: ctypes.CDLL(None).pthread_mutex_lock(lock)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)  # until it hangs
    process.terminate()
    try:
        process.wait(timeout=3 if deferred else 30)
    except subprocess.TimeoutExpired:
        process.kill()
    output, errors = process.communicate()
    assert (process.returncode, output) == (code, "" if deferred else "ended by 15\n")
    assert errors == "SIGTERM: stopping\n"  # printed immediately, while the main thread is in the library


def test_the_first_failed_rank_sets_the_exit_code(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNEXT_EXIT_CODE_FILE", str(tmp_path / "code"))
    tell_batch_script(0)
    assert not (tmp_path / "code").exists()
    tell_batch_script(138)
    tell_batch_script(143)
    assert (tmp_path / "code").read_text() == "138\n"


@pytest.mark.parametrize(("tasks", "code"), [("1", 143), ("2", 7)])
def test_a_signal_while_torch_is_imported(tmp_path, tasks: str, code: int):
    """It ends the process immediately. A rank of srun only records it, because all ranks must stop together."""
    (tmp_path / "torch.py").write_text("import signal; signal.raise_signal(15); raise SystemExit(7)")
    environment = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "SLURM_PROCID": "0"}
    command = [sys.executable, "-m", "resnext", "fit", "runs/x"]
    result = subprocess.run(command, env=os.environ | environment | {"SLURM_STEP_NUM_TASKS": tasks})
    assert result.returncode == code
