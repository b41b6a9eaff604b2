"""Run directories: each has one identity, and one process trains it at a time."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from resnext.errors import UserError
from resnext.run.directory import RUNS, Run, find_unfinished, list_runs
from resnext.run.identity import DataIdentity
from support.small_run import small_config

DATA = DataIdentity(("cat", "dog"), "0123")
COMMAND = ["resnext", "train"]


def test_a_new_run_holds_its_identity(tmp_path: Path):
    config = small_config(tmp_path)
    run = Run.create(config, DATA, COMMAND)
    assert run.path == RUNS / "test"
    assert run.config == config
    assert run.data_identity == DATA
    assert run.info["command"] == COMMAND
    assert run.summary == {"status": "new"}


def test_the_same_configuration_opens_the_same_run(tmp_path: Path):
    config = small_config(tmp_path)
    first = Run.create(config, DATA, COMMAND)
    again = Run.create(config, DATA, COMMAND)
    assert again.info["wandb_id"] == first.info["wandb_id"]
    assert [path.name for path in (again.path / "starts").iterdir()] == ["1.yaml"]


def test_another_start_keeps_its_configuration(tmp_path: Path):
    Run.create(small_config(tmp_path), DATA, COMMAND)
    other = small_config(tmp_path, data__workers=3, trainer__micro_batch_size=4)
    run = Run.create(other, DATA, COMMAND)
    assert run.config == other
    assert sorted(path.name for path in (run.path / "starts").iterdir()) == ["1.yaml", "2.yaml"]


def test_another_identity_is_refused_and_shown(tmp_path: Path):
    Run.create(small_config(tmp_path), DATA, COMMAND)
    changes = (
        "seed was 0 and is now 3, recipe.epochs was 2 and is now 9; give the values it has, or choose another name"
    )
    with pytest.raises(UserError, match=f"^runs/test is another run: {changes}"):
        Run.create(small_config(tmp_path, seed=3, recipe__epochs=9), DATA, COMMAND)


@pytest.mark.parametrize(
    ("epochs", "remedy"),
    [
        (1, "they can only be raised: give 2 or more, or choose another name"),
        (9, "`resnext resume runs/test recipe.epochs=9` raises them, or choose another name"),
    ],
)
def test_only_other_epochs_show_the_command_that_raises_them(tmp_path: Path, epochs: int, remedy: str):
    Run.create(small_config(tmp_path), DATA, COMMAND)
    with pytest.raises(UserError, match=f"^runs/test has recipe.epochs=2, and {epochs} was given; {remedy}"):
        Run.create(small_config(tmp_path, recipe__epochs=epochs), DATA, COMMAND)


def test_a_name_of_another_experiment_is_reported_before_its_data(tmp_path: Path):
    """`make train RUN=mine` without EXP uses the default experiment, which has other data."""
    Run.create(small_config(tmp_path), DATA, COMMAND)
    other = small_config(tmp_path, experiment="resnext_digits", seed=3)
    message = (
        "^runs/test is a run of experiment=test, not of resnext_digits: `make resume RUN=test` resumes it, or choose "
        r"another name \(run=NAME\)$"
    )
    with pytest.raises(UserError, match=message):
        Run.create(other, replace(DATA, fingerprint="4567"), COMMAND)
    assert Run.create(replace(other, seed=0), DATA, COMMAND).path == Path("runs/test")  # only its name differs


@pytest.mark.parametrize(
    ("data", "what"),
    [(replace(DATA, classes=("cat", "cow")), "classes"), (replace(DATA, fingerprint="4567"), "images")],
)
def test_changed_data_is_refused(tmp_path: Path, data: DataIdentity, what: str):
    Run.create(small_config(tmp_path), DATA, COMMAND)
    with pytest.raises(UserError, match=f"the data of runs/test has changed: .*the same {what}"):
        Run.create(small_config(tmp_path), data, COMMAND)


def test_a_second_training_of_a_run_is_refused_and_names_the_holder(tmp_path: Path):
    run = Run.create(small_config(tmp_path), DATA, COMMAND)
    child = os.fork()
    if child == 0:
        with run.lock():
            Path("held").touch()
            time.sleep(60)
    while not Path("held").exists():
        time.sleep(0.01)
    try:
        for start in (lambda: run.lock().__enter__(), lambda: Run.create(run.config, DATA, COMMAND)):
            with pytest.raises(UserError, match=f"runs/test is being trained by process {child} on .*, since 20"):
                start()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with run.lock():  # the holder is dead
        pass


def test_the_workers_of_a_killed_holder_do_not_keep_the_lock(tmp_path: Path):
    run = Run.create(small_config(tmp_path), DATA, COMMAND)
    child = os.fork()
    if child == 0:
        with run.lock():
            worker = os.fork()
            if worker:
                Path("worker").write_text(str(worker))
            time.sleep(60)
            os._exit(0)
    while not (Path("worker").exists() and Path("worker").read_text()):
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    worker = int(Path("worker").read_text())
    assert not run.lock().is_taken()
    os.kill(worker, signal.SIGKILL)  # raises if the worker is not alive


def test_two_starts_in_the_same_second_are_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second start does not see the name of the first run yet, and cannot take it."""
    config = replace(small_config(tmp_path), run=None)
    names = iter(["same", "same", "same-2"])
    monkeypatch.setattr("resnext.run.directory.free_name", lambda _folder, _experiment: next(names))
    exists = Path.exists
    Run.create(config, DATA, COMMAND)
    monkeypatch.setattr(Path, "exists", lambda path: False if path.name == "same" else exists(path))
    assert Run.create(config, DATA, COMMAND).path.name == "same-2"


def test_changed_code_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    run = Run.create(small_config(tmp_path), DATA, COMMAND)
    run.record_start(world_size=1)
    assert "code has changed" not in caplog.text
    monkeypatch.setattr("resnext.run.directory.describe_code", lambda: "0123+45")
    run.record_start(world_size=1)
    assert "the code has changed since the last start" in caplog.text
    assert [start["world_size"] for start in run.info["starts"]] == [1, 1]


def test_a_run_in_training_is_not_an_unfinished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Run.create(small_config(tmp_path, run="idle"), DATA, COMMAND)
    Run.create(small_config(tmp_path, run="busy"), DATA, COMMAND)
    monkeypatch.setattr("resnext.run.lock.RunLock.is_taken", lambda lock: lock.path.parent.name == "busy")
    assert find_unfinished().path.name == "idle"


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path):
    Run.create(small_config(tmp_path), DATA, COMMAND)
    known = r"the latest runs are runs/test; `resnext status` lists all$"
    with pytest.raises(UserError, match=f"^runs/tset is not a run directory: {known}"):
        Run.open(RUNS / "tset")
    with pytest.raises(UserError, match=f"^give a run, runs/NAME: {known}"):  # `make evaluate` without RUN
        Run.open(Path())


def test_an_invalid_edit_of_config_yaml_is_named(tmp_path: Path):
    run = Run.create(small_config(tmp_path), DATA, COMMAND)
    start = run.path / "starts/1.yaml"
    start.write_text(start.read_text().replace("epochs: 2", "epochs: zwei"))
    with pytest.raises(UserError, match=r"runs/test/starts/1.yaml: recipe.epochs=zwei is not allowed"):
        _ = run.config
    start.write_text("a: b: c")
    with pytest.raises(UserError, match=r"runs/test/starts/1.yaml: this is not YAML: "):
        _ = run.config


def test_the_latest_unfinished_run_is_found(tmp_path: Path):
    with pytest.raises(UserError, match="runs has no unfinished run"):
        find_unfinished()
    for number, (name, status) in enumerate([("a", "interrupted"), ("b", "failed"), ("c", "finished")]):
        run = Run.create(small_config(tmp_path, run=name), DATA, COMMAND)
        run.update_summary(status=status)
        os.utime(run.path / "summary.json", (number, number))
    assert [run.path.name for run in list_runs()] == ["a", "b", "c"]
    assert find_unfinished().path.name == "b"
