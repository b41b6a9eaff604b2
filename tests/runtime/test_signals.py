"""Which signal counts, and from when to when."""

import os
import signal
import subprocess
import sys
import time

import pytest

from resnext.errors import Interrupted
from resnext.runtime.signals import SIGNALS, StopRequest
from resnext.runtime.slurm_job import tell_batch_script


def test_the_first_signal_counts_and_the_old_handlers_come_back():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    stop = StopRequest()
    with stop.received(deferred=True):
        for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR2):
            signal.raise_signal(signum)
    assert stop.signum == signal.SIGUSR1
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_a_signal_ends_what_has_nothing_to_save():
    stop = StopRequest()
    with pytest.raises(Interrupted) as interruption, stop.received(deferred=False):
        signal.raise_signal(signal.SIGUSR2)
    assert interruption.value.signum == signal.SIGUSR2
    with pytest.raises(Interrupted), stop.received(deferred=False):  # one that came before, while torch was imported
        pytest.fail("this is not reached")
    stop = StopRequest()
    with stop.received(deferred=False):
        stop.defer()
        signal.raise_signal(signal.SIGTERM)
    assert stop.signum == signal.SIGTERM


def test_a_process_that_is_done_is_not_ended_by_a_late_signal():
    script = (
        "import signal; from resnext.runtime.signals import StopRequest\n"
        "with StopRequest().received_to_the_end(deferred=True): pass\n"
        "signal.raise_signal(signal.SIGUSR1); signal.raise_signal(signal.SIGTERM); print('alive')"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "alive\n")


@pytest.mark.parametrize(("deferred", "code"), [(False, 143), (True, -signal.SIGKILL)])
def test_a_signal_ends_a_process_that_hangs_in_a_library(deferred: bool, code: int):
    """As in init_process_group, where Python's own handlers do not run. A deferred signal has to wait for the end."""
    script = (
        "import ctypes; from resnext.runtime.signals import StopRequest\n"
        "stop = StopRequest()\n"
        f"with stop.received(deferred={deferred}),"
        "     stop.ends_what_hangs(lambda signum: print('ended by', signum, flush=True)):\n"
        "    print('ready', flush=True); lock = ctypes.create_string_buffer(64)\n"
        "    while True: ctypes.CDLL(None).pthread_mutex_lock(lock)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.3)  # until it hangs
    process.terminate()
    try:
        process.wait(timeout=3 if deferred else 30)
    except subprocess.TimeoutExpired:
        process.kill()
    output, _ = process.communicate()
    assert (process.returncode, output) == (code, "" if deferred else "ended by 15\n")


def test_the_first_rank_that_leaves_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("RESNEXT_EXIT_CODE_FILE", str(tmp_path / "code"))
    tell_batch_script(0)
    assert not (tmp_path / "code").exists()
    tell_batch_script(138)
    tell_batch_script(143)
    assert (tmp_path / "code").read_text() == "138\n"


@pytest.mark.parametrize(("tasks", "code"), [("1", 143), ("2", 7)])
def test_a_signal_while_torch_is_imported(tmp_path, tasks: str, code: int):
    """It ends the process at once. A rank of srun remembers it, and leaves together with the others."""
    (tmp_path / "torch.py").write_text("import signal; signal.raise_signal(15); raise SystemExit(7)")
    environment = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "SLURM_PROCID": "0"}
    command = [sys.executable, "-m", "resnext", "fit", "runs/x"]
    result = subprocess.run(command, env=os.environ | environment | {"SLURM_STEP_NUM_TASKS": tasks})
    assert result.returncode == code
