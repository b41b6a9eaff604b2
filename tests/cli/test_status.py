"""The table of runs: complete names, accuracy, and the step at which a run stopped."""

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.cli.status import main as status
from resnext.run.directory import Run
from resnext.run.identity import DataIdentity
from support.small_run import small_config

DATA = DataIdentity(("cat", "dog"), "0123")
LONG = "my_experiment_with_a_long_name-20261127-161033"
HEADER = "epoch,step,lr,train/loss,val/loss,val/top1,val/top5\n"


def make(tmp_path: Path, name: str, **summary: object) -> Run:
    run = Run.create(small_config(tmp_path, run=name), DATA, ["test"])
    run.record_start(steps=100)
    run.update_summary(**summary)
    return run


def test_names_are_not_shortened_and_empty_columns_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = make(tmp_path, LONG, status="interrupted", steps=23)
    (run.path / "metrics.csv").write_text(f"{HEADER}1,20,0.1,0.5,,,\n")
    results = {"val/top1": 0.8123, "val/top5": 1.0}
    make(tmp_path, "b", status="finished", steps=100, **results, epochs=2, best_epoch=1, last=results)
    assert status([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{'run':{len(LONG)}} state          step top-1",
        f"{LONG} interrupted  23/100     -",
        f"{'b':{len(LONG)}} finished    100/100 81.23",
    ]


def test_a_run_is_found_by_the_name_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make(tmp_path, LONG, status="interrupted", steps=23)
    assert status([]) == 0
    name = capsys.readouterr().out.splitlines()[1].split()[0]
    assert status([name]) == 0
    assert f"run       runs/{LONG}\nstate     interrupted\nstep      23/100\n" in capsys.readouterr().out


def test_a_file_in_the_place_of_runs_is_refused(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["status"]) == 0
    assert capsys.readouterr().out == "runs has no run\n"
    Path("runs").touch()
    for verb in ("status", "resume"):
        assert run_verb([verb]) == 2
        line = f"resnext {verb}: runs is a file, but must be a folder for the runs: move it away\n"
        assert capsys.readouterr() == ("", line)


def test_a_killed_run_is_shown_at_the_step_of_its_last_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A killed run cannot write its step into summary.json."""
    run = make(tmp_path, "killed", status="running", steps=10)
    (run.path / "metrics.csv").write_text(f"{HEADER}1,10,0.1,0.5,,,\n1,20,0.1,0.5,,,\n1,3")
    assert status(["killed"]) == 0
    assert "state     died\nstep      20/100\n" in capsys.readouterr().out


def test_watching_needs_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make(tmp_path, "a", status="finished", steps=100)
    assert run_verb(["status", "--watch"]) == 2
    assert capsys.readouterr().err == (
        "resnext status: --watch needs a terminal, and the output is not one: leave out --watch\n"
    )


def read_until(terminal: int, text: bytes | None) -> bytes:
    """What is written to the terminal until `text` appears; None: until its other side is closed."""
    seen = b""
    while text is None or text not in seen:
        assert select.select([terminal], [], [], 60)[0], f"nothing more after {seen!r}"
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            assert text is None, seen
            break
    return seen


@pytest.mark.processes
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_watched_table_is_refreshed_and_leaves_a_clean_terminal(tmp_path: Path, signum: signal.Signals):
    """On a terminal of 6 lines, with 9 runs: the latest are shown."""
    for number in range(9):
        run = make(tmp_path, f"run-{number}", status="interrupted", steps=10)
        os.utime(run.path / "summary.json", (number, number))
    outside, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 80, 0, 0))
    code = "import resnext.cli.status as s; s.WATCH_SECONDS = 0.2; from resnext.__main__ import main; main()"
    command = [sys.executable, "-c", code, "status", "--watch"]
    sizes = ("LINES", "COLUMNS")  # pytest-xdist sets them
    environment = {name: value for name, value in os.environ.items() if name not in sizes} | {"TERM": "xterm"}
    with subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, env=environment) as process:
        try:
            os.close(inside)
            seen = read_until(outside, b"run-8 interrupted 10/100")
            assert b"run-3" not in seen
            run.update_summary(steps=77)
            seen += read_until(outside, b"run-8 interrupted 77/100")
            process.send_signal(signum)
            seen += read_until(outside, None)
            assert process.wait(timeout=30) == (0 if signum == signal.SIGINT else 143)
        finally:
            process.kill()
            os.close(outside)
    before, _, after = seen.decode().partition("\x1b[?1049l")
    assert "\x1b[?1049h" in before
    rows = [line for line in after.splitlines() if "interrupted" in line]
    assert len(rows) == (9 if signum == signal.SIGINT else 0)
    assert "Traceback" not in after
