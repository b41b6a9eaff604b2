"""metrics.csv that was damaged between two starts: one line reports it, and the checkpoint restores it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb

from resnext.cli.status import main as status
from resnext.errors import Interrupted
from resnext.loggers.csv import CsvLogger
from resnext.loggers.wandb import build_wandb_logger
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.run.metrics import parse_rows, read_last_row, read_rows
from resnext.training.fit import fit
from support.small_run import small_config
from support.stopping import Stopper, make_run, with_callbacks

DAMAGES: dict[str, Callable[[list[bytes]], bytes]] = {
    "lines are lost": lambda lines: b"".join(lines[:2] + lines[4:]),
    "the end is lost": lambda lines: b"".join(lines[:-2]),
    "a line is cut": lambda lines: b"".join([*lines[:2], lines[2][:9], *lines[3:]]),
    "zeros": lambda lines: b"".join([*lines[:2], bytes(len(lines[2]) - 2) + b"\r\n", *lines[3:]]),
    "zeros at the end": lambda lines: b"".join([*lines[:-1], bytes(len(lines[-1]))]),
    "no header": lambda lines: b"".join(lines[1:]),
    "not text": lambda lines: b"".join([*lines[:2], b"\xff\xfe,1\n", *lines[3:]]),
    "empty": lambda lines: b"",
}
LOST = dict.fromkeys(
    ("lines are lost", "a line is cut"), "2 rows, steps 2 to 3"
)  # the cut line also damages the next line
LOST |= dict.fromkeys(("zeros", "not text"), "1 row, step 2")
LOST |= {"the end is lost": "2 rows, step 4", "zeros at the end": "1 row, step 4"}


def damage(path: Path, how: str) -> None:
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[how](path.read_bytes().splitlines(keepends=True)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """runs/parts, interrupted after its first epoch of four steps, and runs/whole, which was not interrupted."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = {"recipe__batch_size": 359, "recipe__ema": {"decay": 0.9}, "recipe__max_steps": 5}
        whole, parts = (make_run(small_config(digits, run=name, **options)) for name in ("whole", "parts"))
        fit(whole)
        with with_callbacks(Stopper("on_validation_end", 4)), pytest.raises(Interrupted):
            fit(parts)
    return folder


@pytest.fixture
def parts(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    return Run(Path("runs/parts"))


@pytest.mark.parametrize("how", ["removed", *DAMAGES])
def test_lost_rows_are_reported_and_restored(parts: Run, how: str):
    whole = Run(Path("runs/whole"))
    damage(parts.path / "metrics.csv", how)
    fit(parts)
    lost = LOST.get(how, "5 rows, steps 1 to 4")
    line = f"metrics.csv has lost or changed {lost}: it is rewritten from last.ckpt"
    assert (parts.path / "log.txt").read_text().count(line) == 1
    assert (parts.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    assert [part for part in compare(whole, parts) if not part.same] == []


def test_a_complete_file_gives_no_warning(parts: Run):
    fit(parts)
    assert "lost" not in (parts.path / "log.txt").read_text()


@pytest.mark.parametrize("how", ["removed", *DAMAGES])
def test_readers_use_the_complete_rows(parts: Run, how: str, capsys: pytest.CaptureFixture[str]):
    """The readers are status, compare, and a start that sends rows to W&B again."""
    path = parts.path / "metrics.csv"
    whole = read_rows(path)
    damage(path, how)
    rows = read_rows(path)
    assert len(rows) < 5
    assert all(row in whole for row in rows)
    assert read_last_row(path) == (rows[-1] if rows else {})
    assert status([str(parts.path)]) == 0
    assert "step      4/5" in capsys.readouterr().out
    assert not compare(parts, Run(Path("runs/whole")))[0].same


def test_the_complete_rows_of_a_damaged_file_are_sent_to_wandb(parts: Run):
    damage(parts.path / "metrics.csv", "zeros")
    sent = build_wandb_logger(parts.config, parts.path, "abcd1234").experiment.summary
    assert {key: sent[key] for key in ("trainer/global_step", "epoch")} == {"trainer/global_step": 4, "epoch": 1}
    wandb.finish()


def test_a_row_with_text_is_left_out():
    header = "epoch,step,lr,train/loss\n"
    for line in ("1,2,0.1,nan\n", "1,2,,\n"):
        assert len(parse_rows(header + line)) == 1
    for line in ("1,2,0.1\n", "1,2,0.1,0.5,\n", "1,2,0.1,\0\n", ",2,0.1,0.5\n", "1,x,0.1,0.5\n", "1,2,0.1,0.5"):
        assert parse_rows(header + line) == []


def test_a_checkpoint_holds_a_copy_of_metrics_csv(tmp_path: Path):
    logger = CsvLogger(tmp_path, resume_step=0, validated=True, average=False)
    logger.log_metrics({"epoch": 1, "lr": 0.1, "train/loss": 1 / 3}, step=1)
    assert logger.metrics.encode() == (tmp_path / "metrics.csv").read_bytes()
