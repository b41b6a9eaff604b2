"""Every file of a run, damaged in every way: the verb that needs it prints one line; status shows the other runs."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.config.compose import run_with_hydra
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import identify_data
from resnext.errors import Interrupted, UserError
from resnext.run.directory import Run
from resnext.run.run_files import FILES
from resnext.training.fit import fit
from support.small_run import write_images
from support.stopping import IMAGES, Stopper, with_callbacks

OVERRIDES = ["run=hurt", "recipe.epochs=2", "recipe.batch_size=16", "checkpoint.every_steps=1", "data.workers=0"]
OVERRIDES += ["logger.mode=disabled", "trainer.accelerator=cpu", "trainer.devices=1", "experiment=image_folder"]
OVERRIDES += ["model=resnext_small", "recipe=small"]
OVERRIDES += ["model.layers=[1,1]", "model.cardinality=2", "model.base_width=16", "model.width=8"]
HUGE = 8 << 30


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def huge(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(HUGE)  # sparse


def replace(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": truncated,
    "a list": lambda path: path.write_text("[1]\n"),
    "a number": lambda path: path.write_text("5\n"),
    "an empty mapping": lambda path: path.write_text("{}\n"),
    "NULs": lambda path: path.write_bytes(bytes(4096)),
    "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x80: {\n"),
    "nested": lambda path: path.write_text("[" * 1_100),
    "huge": huge,
    "missing": replace(lambda path: None),
    "a folder": replace(lambda path: path.mkdir()),
    "a FIFO": replace(os.mkfifo),
    "a device": replace(lambda path: path.symlink_to("/dev/zero")),
    "a dangling link": replace(lambda path: path.symlink_to("nowhere")),
}
TEXTS = [name for name in DAMAGES if name != "truncated"]  # a truncated YAML file is still valid YAML
NOT_REGULAR = ["a folder", "a FIFO", "a device", "a dangling link"]


@pytest.fixture(autouse=True)
def _ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that hangs, for example on a FIFO, fails after 30 s."""

    def hangs(*_arguments: object) -> None:
        raise KeyboardInterrupt("it hangs")

    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, with runs/hurt, which was stopped in its second epoch, and with its copy runs/whole."""
    folder = tmp_path_factory.mktemp("made")
    write_images(folder / "images", IMAGES)
    configs: list[Config] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        run_with_hydra("train", [*OVERRIDES, f"data.root={folder}/images"], configs.append)
        run = Run.create(configs[0], identify_data(*load_images(configs[0].data)), ["resnext", "train"])
        with with_callbacks(Stopper("on_train_batch_start", 4)), pytest.raises(Interrupted):
            fit(run)
        assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
        shutil.copytree(run.path, "runs/whole")
        (run.path / "jobs.txt").write_text("7 submitted\n7 start\n")
    return folder


@pytest.fixture
def hurt(made: Path) -> Path:
    return Path(shutil.copytree(made / "runs", "runs")) / "hurt"


@pytest.fixture
def verb(made: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, stdout and stderr of a verb on runs/hurt."""

    def run(name: str, *more: str) -> tuple[int, str, str]:
        arguments = {
            "train": [*OVERRIDES, f"data.root={made}/images"],
            "compare": ["runs/hurt", "runs/whole"],
            "status": [],
        }.get(name, ["runs/hurt"])
        code = run_verb([name, *arguments, *more])
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


def read_rows(output: str) -> dict[str, str]:
    """The rows of `status` by the name of their run, with one space between two cells."""
    cells = [line.split() for line in output.splitlines()[1:]]
    return {name: " ".join(rest) for name, *rest in cells}


@pytest.mark.parametrize("damage", TEXTS)
@pytest.mark.parametrize("name", ["run.json", "summary.json"])
def test_status_shows_the_damaged_run_and_the_others(hurt: Path, verb: Callable, name: str, damage: str):
    DAMAGES[damage](hurt / name)
    code, output, errors = verb("status")
    assert (code, errors) == (0, "")
    rows = read_rows(output)
    assert set(rows) == {"hurt", "whole"}
    assert rows["hurt"].startswith(f"damaged {hurt / name} ")
    assert rows["whole"].startswith("interrupted 5/8 ")
    assert_one_line(*verb("status", "runs/hurt"), name)


@pytest.mark.parametrize("damage", NOT_REGULAR)
@pytest.mark.parametrize("name", FILES)
def test_no_file_of_a_run_blocks_a_verb(hurt: Path, verb: Callable, name: str, damage: str):
    DAMAGES[damage](hurt / name)
    code, output, errors = verb("status")
    assert (code, errors) == (0, "")
    rows = read_rows(output)
    assert rows["whole"].startswith("interrupted 5/8 ")
    assert rows["hurt"].startswith(f"damaged {hurt / name} is a")
    assert_one_line(*verb("resume"), f"{name} is a")


@pytest.mark.parametrize(
    ("name", "damage", "row"),
    [
        ("metrics.csv", "huge", "damaged runs/hurt/metrics.csv is damaged: it has 8,589,934"),
        ("metrics.csv", "NULs", "interrupted 5/8"),
        ("metrics.csv", "not UTF-8", "interrupted 5/8"),
        ("metrics.csv", "empty", "interrupted 5/8"),
        ("metrics.csv", "truncated", "interrupted 5/8"),
        ("jobs.txt", "huge", "damaged runs/hurt/jobs.txt is damaged: it has 8,589,934,592 bytes"),
        ("jobs.txt", "NULs", "interrupted 5/8"),
        ("jobs.txt", "not UTF-8", "damaged runs/hurt/jobs.txt is damaged: byte 0 is not UTF-8 text"),
        ("jobs.txt", "a list", "interrupted 5/8"),
    ],
)
def test_status_with_a_damaged_table(hurt: Path, verb: Callable, name: str, damage: str, row: str):
    DAMAGES[damage](hurt / name)
    code, output, errors = verb("status")
    assert (code, errors) == (0, "")
    rows = read_rows(output)
    assert rows["hurt"].startswith(row)
    assert rows["whole"].startswith("interrupted 5/8 ")


@pytest.mark.parametrize("line", ["1,\0\0,,", "1,many,", "1", "\0" * 70_000, "1," + "9" * 70_000])
def test_status_leaves_out_an_incomplete_line(hurt: Path, verb: Callable, line: str):
    with open(hurt / "metrics.csv", "a") as file:
        file.write(f"{line}\n")
    assert read_rows(verb("status")[1])["hurt"].startswith("interrupted 5/8 ")


@pytest.mark.parametrize("damage", TEXTS)
@pytest.mark.parametrize("file", ["config.yaml", "starts/1.yaml", "run.json", "summary.json"])
def test_every_reader_names_the_damaged_file(hurt: Path, file: str, damage: str):
    DAMAGES[damage](hurt / file)
    errors = {name: str(error) for name in ("made", "config", "info", "summary") if (error := refusal(Run(hurt), name))}
    assert len(errors) == 1
    (error,) = errors.values()
    assert error.startswith(f"{hurt / ('starts' if file == 'starts/1.yaml' else file)}")
    assert "\n" not in error


def refusal(run: Run, name: str) -> UserError | None:
    try:
        getattr(run, name)
    except UserError as error:
        return error


@pytest.mark.parametrize("damage", ["empty", "a list", "a FIFO"])
@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("train", ["config.yaml", "starts/1.yaml", "run.json", "summary.json"]),
        ("resume", ["starts/1.yaml", "run.json", "summary.json"]),
        ("evaluate", ["config.yaml", "starts/1.yaml", "run.json"]),
        ("compare", ["checkpoints/last.ckpt"]),
        ("evaluate --checkpoint last", ["checkpoints/last.ckpt"]),
    ],
)
def test_every_verb_names_the_damaged_file_in_one_line(
    hurt: Path, verb: Callable, name: str, files: list[str], damage: str
):
    """The verb changes no file of the run before this error."""
    for file in files:
        kept = (hurt / file).rename(hurt / "kept")
        DAMAGES[damage](hurt / file)
        before = {path.name for path in hurt.rglob("*")}
        assert_one_line(*verb(*name.split()), file)
        assert {path.name for path in hurt.rglob("*")} - before <= {"lock", "log.txt"}
        kept.replace(hurt / file)


def test_status_shows_a_run_that_lost_a_file_with_the_remedy(hurt: Path, verb: Callable):
    (hurt / "config.yaml").unlink()
    shutil.rmtree("runs/whole/checkpoints")
    rows = verb("status")[1].splitlines()[1:]
    assert [row.split(maxsplit=2)[2] for row in sorted(rows)] == [
        "runs/hurt/config.yaml does not exist: copy runs/hurt/starts/1.yaml to it",
        "runs/whole/checkpoints is not a folder: restore it, or make an empty one to train from the start",
    ]


@pytest.mark.parametrize("part", ["checkpoints", "config.yaml", "run.json"])
def test_status_of_several_runs_shows_a_damaged_run_as_a_row(hurt: Path, verb: Callable, part: str):
    shutil.rmtree(hurt / part) if (hurt / part).is_dir() else (hurt / part).unlink()
    code, output, errors = verb("status", "runs/hurt", "whole")
    assert (code, errors) == (0, "")
    rows = [" ".join(row.split()) for row in output.splitlines()]
    assert any(row.startswith(f"hurt damaged runs/hurt/{part} ") for row in rows)
    assert any(row.startswith("whole interrupted 5/8 ") for row in rows)
    assert_one_line(*verb("status", "runs/hurt"), f"runs/hurt/{part} ")
    assert_one_line(*verb("status", "runs/hurt", "runs/nowhere"), "runs/nowhere is not a run directory")


def test_other_files_in_starts_are_ignored(hurt: Path):
    for name in ("2x.yaml", "02.yaml", "-3.yaml", "٣.yaml", "1.yaml~", "0.yaml"):
        (hurt / "starts" / name).write_text("nonsense")
    assert Run(hurt).config.run == "hurt"
    shutil.rmtree(hurt / "starts")
    with pytest.raises(UserError, match=r"runs/hurt/starts has no 1.yaml: copy runs/hurt/config.yaml to it"):
        _ = Run(hurt).config


@pytest.mark.parametrize("file", ["config.yaml", "starts/1.yaml", "run.json", "summary.json"])
def test_resume_skips_a_damaged_run(
    hurt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, file: str
):
    resumed: list[Run] = []
    monkeypatch.setattr("resnext.launch.local.launch", lambda run, _parts: resumed.append(run))
    (hurt / file).write_text("")
    os.utime(hurt / "summary.json", (2e9, 2e9))
    assert run_verb(["resume"]) == 0
    assert [run.path.name for run in resumed] == ["whole"]
    assert f"runs/hurt/{file}" in caplog.text
    assert "this run is skipped" in caplog.text


def test_an_existing_temporary_file_is_replaced(hurt: Path):
    """Opening a link would write elsewhere, and opening a FIFO would hang."""
    os.mkfifo(hurt / ".summary.json.partial")
    (hurt / ".run.json.partial").symlink_to(Path("elsewhere").absolute())
    Run(hurt).update_summary(steps=7)
    Run(hurt).update_info(teacher="x")
    assert (Run(hurt).summary["steps"], Run(hurt).info["teacher"]) == (7, "x")
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(
    ("file", "before", "after", "message"),
    [
        ("run.json", '"classes": [', '"classes": [5, ', r"classes\[0\] is not text"),
        ("run.json", '"wandb_id"', '"wandb"', "wandb_id is missing"),
        ("run.json", '"resolved": {', '"resolved": {}, "x": {', "accelerator is missing"),
        ("run.json", '"config": "', '"config": 1, "c": "', "config is not text"),
        ("summary.json", '"val/top1": ', '"val/top1": "1", "x": ', "val/top1 is not a number"),
        ("summary.json", '"best_epoch"', '"best"', "best_epoch is missing"),
        ("summary.json", '"status": "', '"status": [], "x": "', "status is not text"),
    ],
)
def test_the_first_wrong_key_is_named(hurt: Path, file: str, before: str, after: str, message: str):
    text = (hurt / file).read_text()
    assert before in text
    (hurt / file).write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=rf"runs/hurt/{file} is damaged \({message}\): "):
        _ = Run(hurt).info, Run(hurt).summary


def assert_one_line(code: int, output: str, errors: str, named: str) -> None:
    assert code == 2, output + errors
    assert errors.count("\n") == 1, errors
    assert named in errors
