"""`resnext prepare` through the command line."""

from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.cli.prepare import _bytes


@pytest.mark.processes
def test_training_on_a_pack_equals_training_on_its_folder(image_folder: Path, tmp_path: Path, resnext):
    """Both give the same weights, and a run of the folder accepts the pack as its data."""
    import torch

    packed = resnext("prepare", "pack", str(image_folder), "pack", "--shard-size", "1MiB")
    assert packed.stdout == f"12 training and 5 validation images; train on them with DATA={tmp_path}/pack\n"
    for name, root in (("folder", image_folder), ("packed", tmp_path / "pack")):
        arguments = f"""experiment=image_folder model=resnext_small data.root={root} data.workers=0 run={name}
            recipe.image_size=8 recipe.batch_size=4 recipe.epochs=2 logger.mode=disabled trainer.accelerator=cpu"""
        result = resnext("train", *arguments.split())
        assert result.returncode == 0, result.stderr
    folder, packed = (
        torch.load(f"runs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("folder", "packed")
    )
    assert folder.keys() == packed.keys()
    assert all(torch.equal(folder[name], packed[name]) for name in folder)
    moved = resnext("evaluate", "runs/folder", f"data.root={tmp_path / 'pack'}")
    assert moved.returncode == 0, moved.stderr
    small = resnext("prepare", "pack", str(image_folder), "small", "--short-side", "8")
    assert small.returncode == 0
    other = resnext("evaluate", "runs/folder", f"data.root={tmp_path / 'small'}")
    assert other.returncode == 0, other.stderr
    assert f"images    5 images of 8 pixels\nfolder    {tmp_path}/small, not the run's own\n" in other.stdout


def test_bad_images_are_counted_in_the_output(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (image_folder / "train/cat/2.png").write_bytes(b"no image")
    assert run_verb(["prepare", "pack", str(image_folder), "pack"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"11 training and 5 validation images; train on them with DATA={tmp_path}/pack",
        f"left out because they cannot be read: 1, listed in {tmp_path}/pack/bad.txt",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pack", "nowhere", "there"],
            "nowhere is not a folder: give the folder that holds train/CLASS/ and val/CLASS/",
        ),
        (["imagenet", "nowhere", "there"], "nowhere is not a folder: give the folder with the archives"),
        (["cifar10", "."], ". exists already: remove it"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["prepare", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["pack"], ["pack", "a", "b", "--short-side", "0"], ["pack", "a", "b", "--shard-size", "5"]]
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert run_verb(["prepare", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    program = " ".join(["resnext prepare", *arguments[:1]])
    assert line.startswith("resnext prepare: ")
    assert line.endswith(f"; `{program} --help` explains the arguments")


def test_an_interrupt_prints_how_to_continue(image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("resnext.prepare.pack.prepare_pack", interrupted)
    assert run_verb(["prepare", "pack", str(image_folder), "pack"]) == 130
    assert capsys.readouterr().out == "interrupted; repeat the same command to continue\n"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", 2**30), ("500MB", 5 * 10**8), ("2g", 2 * 10**9), ("1.5 MiB", 3 * 2**19), ("4194304", 2**22)],
)
def test_sizes_are_parsed(text: str, size: int):
    assert _bytes(text) == size
