"""checkpoint.keep_every_epochs: the kept files of a run that is stopped, killed or resumed are those of a whole run."""

import errno
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from resnext import files
from resnext.__main__ import run_verb
from resnext.errors import Interrupted
from resnext.report.comparison import _compare_trees
from resnext.run.directory import Run
from resnext.run.kept_checkpoints import find_kept
from resnext.runtime.checkpoint import load_checkpoint, read_checkpoint, read_position
from resnext.runtime.checkpoint_io import AtomicCheckpointIO
from resnext.training.fit import fit
from support.small_run import write_images
from support.stopping import IMAGES, STEPS, Stopper, build_run, with_callbacks

# not the run's id, and not Lightning's own counters, which it counts in another way after a resume
COMPARED = ("global_step", "validated", "best", "metrics", "state_dict", "state_dict_ema", "optimizer_states")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_images(root, IMAGES)
    return root


def keeping_run(images: Path, name: str = "parts", every: int | None = 1, **more: object) -> Run:
    options: dict[str, Any] = {"optimizer": "sgd", "features": "plain", "micro": None, "workers": 0}
    changes = {"recipe__ema": {"decay": 0.9}, "checkpoint__keep_every_epochs": every, **more}
    return build_run(images, name, **options, **changes)


@pytest.fixture(scope="module")
def copied(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last.ckpt after each validation of an uninterrupted run that keeps nothing, copied by a callback."""
    folder = tmp_path_factory.mktemp("copied")

    class Copier(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            self._copy(trainer)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self._copy(trainer)

        def _copy(self, trainer: Any) -> None:
            if epoch := trainer.global_step // STEPS:
                shutil.copy("runs/parts/checkpoints/last.ckpt", folder / f"epoch-{epoch:03}.ckpt")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        with with_callbacks(Copier()):
            fit(keeping_run(images, every=None))
        assert find_kept(Path("runs/parts/checkpoints")) == {}
    return folder


def assert_kept(run: Run, copied: Path, epochs: list[int]) -> None:
    """The kept files are of these epochs, and each has the content of last.ckpt after its validation."""
    kept = find_kept(run.checkpoints)
    assert list(kept) == epochs
    names = {"last.ckpt", "previous.ckpt", "best.ckpt", *(path.name for path in kept.values())}
    assert {path.name for path in run.checkpoints.iterdir()} == names
    for path in kept.values():
        found, expected = ({key: load_checkpoint(each)[key] for key in COMPARED} for each in (path, copied / path.name))
        assert _compare_trees("content", found, expected).same, path


def test_a_stop_and_a_resume_keep_the_same_files_and_write_none_twice(images: Path, copied: Path):
    run = keeping_run(images)
    with with_callbacks(Stopper("on_validation_end", 2 * STEPS)), pytest.raises(Interrupted):
        fit(run)
    assert list(find_kept(run.checkpoints)) == [1, 2]
    fit(run)
    assert_kept(run, copied, [1, 2, 3])
    assert (run.checkpoints / "epoch-003.ckpt").samefile(run.checkpoints / "last.ckpt")


def test_the_checkpoint_of_an_incomplete_last_epoch_stays(images: Path):
    """As after a kill between the last save and the last status."""
    run = keeping_run(images, recipe__max_steps=STEPS + 1)
    fit(run)
    before = {path.name: path.stat().st_ino for path in run.checkpoints.iterdir()}
    assert list(find_kept(run.checkpoints)) == [1, 2]
    run.update_summary(status="running")
    fit(run)
    assert {path.name: path.stat().st_ino for path in run.checkpoints.iterdir()} == before


def test_keep_every_epochs_may_change_at_each_start(images: Path, copied: Path):
    run = keeping_run(images, every=None)
    with with_callbacks(Stopper("on_train_batch_start", STEPS)), pytest.raises(Interrupted):
        fit(run)
    assert run_verb(["resume", "runs/parts", "checkpoint.keep_every_epochs=2"]) == 0
    assert_kept(run, copied, [2])


# The changes: remove an old .epoch-003.ckpt.partial, link it, rename it to epoch-003.ckpt, remove it, and rename the
# checkpoint to last.ckpt.
@pytest.mark.processes
@pytest.mark.parametrize(("change", "names"), [(3, {".epoch-003.ckpt.partial"}), (5, {"epoch-003.ckpt"})])
def test_a_kill_while_a_file_is_kept_leaves_no_half_file_and_the_same_files_after_a_resume(
    images: Path, copied: Path, change: int, names: set[str]
):
    run = keeping_run(images)
    with with_callbacks(Stopper("on_validation_start", 3 * STEPS)), pytest.raises(Interrupted):
        fit(run)
    process = multiprocessing.get_context("fork").Process(target=_killed_fit, args=(run, change))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert {path.name for path in run.checkpoints.iterdir() if "epoch-003" in path.name} == names
    assert not read_position(run.checkpoints / "last.ckpt").validated
    for path in find_kept(run.checkpoints).values():
        read_checkpoint(path)
    fit(run)
    assert_kept(run, copied, [1, 2, 3])


def _killed_fit(run: Run, number: int) -> None:
    """Kills this process at the change of a file with this number, counted from the first that names epoch-003.ckpt."""
    seen = 0

    def count(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event in ("os.rename", "os.link", "os.remove") and (seen or "epoch-003" in str(arguments)):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    fit(run)


def test_resume_and_status_ignore_kept_checkpoints_and_a_resume_renames_those_of_later_epochs(
    images: Path, copied: Path, capsys: pytest.CaptureFixture[str]
):
    """Without last.ckpt, previous.ckpt and best.ckpt, the run begins again."""
    run = keeping_run(images)
    with with_callbacks(Stopper("on_validation_end", 2 * STEPS)), pytest.raises(Interrupted):
        fit(run)
    old = [path.stat().st_ino for path in find_kept(run.checkpoints).values()]
    for name in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        (run.checkpoints / name).unlink()
    capsys.readouterr()
    assert run_verb(["status", "runs/parts"]) == 0
    assert "saved     -" in capsys.readouterr().out
    fit(run)
    printed = capsys.readouterr()
    assert "2 kept checkpoints of later epochs (epoch-001.ckpt, epoch-002.ckpt)" in printed.out + printed.err
    assert [start["from_step"] for start in run.info["starts"]] == [0, 0]
    renamed = sorted(run.checkpoints.glob("epoch-00?.replaced-*.ckpt"))
    assert [path.stat().st_ino for path in renamed] == old
    for path in renamed:
        path.unlink()
    assert_kept(run, copied, [1, 2, 3])


def test_without_hard_links_the_file_is_copied(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", _refuse)
    files.atomic_write(Path("last.ckpt"), b"content")
    files.link_or_copy(Path("last.ckpt"), Path("epoch-001.ckpt"))
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == dict.fromkeys(
        ("last.ckpt", "epoch-001.ckpt"), b"content"
    )


def test_a_copy_that_does_not_fit_on_the_disk_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(os, "link", _refuse)
    monkeypatch.setattr(shutil, "copyfileobj", _full)
    io = AtomicCheckpointIO()
    io.save_checkpoint({"global_step": 1}, tmp_path / "last.ckpt", storage_options=tmp_path / "epoch-001.ckpt")
    assert "epoch-001.ckpt could not be saved: No space left on device; the training continues" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert (io.failures, torch.load(tmp_path / "last.ckpt", weights_only=True)) == (0, {"global_step": 1})


def _refuse(*_arguments: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def _full(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
