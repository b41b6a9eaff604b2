"""The SLURM features that need no SLURM. tests/slurm tests the rest on a real cluster."""

import os
import subprocess
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import identify_data
from resnext.errors import UserError
from resnext.launch.slurm import TEMPLATE, check_paths, check_world, write_script
from resnext.run.directory import Run
from resnext.runtime.world import World
from support.small_run import small_config


def make_run(config: Config) -> Run:
    return Run.create(config, identify_data(*load_images(config.data)), ["test"])


def test_the_script_is_bash_and_has_the_options_of_the_configuration(image_folder: Path, tmp_path: Path):
    slurm = {
        "nodes": 4,
        "gpus_per_node": 8,
        "time": "1-12:00:00",
        "partition": "gpu",
        "exclude": "node[3-7]",
        "prologue": ["module load cuda", 'WRAP="apptainer exec --nv torch.sif"'],
        "sbatch": ["--mail-type=END"],
    }
    run = make_run(small_config(image_folder, recipe__batch_size=8, run="a b'c", slurm=slurm))
    script = write_script(run)
    text = script.read_text()
    options = {line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert options == {
        "--job-name=a_b_c",
        f"--chdir={tmp_path}",
        '--output="runs/a b\'c/slurm-%j.out"',
        "--open-mode=append",
        "--requeue",
        "--nodes=4",
        "--ntasks-per-node=8",
        "--gres=gpu:8",
        "--time=1-12:00:00",
        "--partition=gpu",
        '--exclude="node[3-7]"',
        "--signal=USR1@120",
        "--mail-type=END",
    }
    assert 'set -e\nmodule load cuda\nWRAP="apptainer exec --nv torch.sif"\nset +e\n' in text
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assigned = [line for line in text.splitlines() if line.startswith(("run=", "python=", "max_requeues="))]
    shown = subprocess.run(["bash", "-c", "\n".join(assigned) + '\necho "$run"'], capture_output=True, text=True)
    assert shown.stdout == "runs/a b'c\n"


def test_slurm_expands_nothing_in_a_runs_name(image_folder: Path):
    """sbatch(1): `%%` is the character %. With a backslash, no % is a pattern any more, not even in %j."""
    run = make_run(small_config(image_folder, recipe__batch_size=8, run="50%j", slurm={"tasks_per_node": 1}))
    assert "#SBATCH --output=runs/50%%j/slurm-%j.out\n" in write_script(run).read_text()
    for key in ("run", "experiment"):
        with pytest.raises(UserError, match=rf"{key}=a\\b: SLURM does not accept a backslash"):
            check_paths(small_config(image_folder, **{"run": None, key: "a\\b"}))


def test_the_template_is_a_valid_script():
    assert subprocess.run(["bash", "-n", TEMPLATE]).returncode == 0
    refused = subprocess.run(["bash", TEMPLATE], capture_output=True, text=True)
    assert refused.returncode != 0
    assert "give the run: sbatch scripts/train.sbatch runs/NAME" in refused.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "give slurm.gpus_per_node=8"),
        ({"slurm__gpus_per_node": 8, "trainer__devices": 4}, "trainer.devices=4, but slurm asks for 8 tasks"),
        ({"slurm__tasks_per_node": 1, "slurm__nodes": 2, "trainer__nodes": 3}, "trainer.nodes=3, but slurm asks for 2"),
        (
            {"slurm__gpus_per_node": 8, "trainer__accelerator": "cpu"},
            "trainer.accelerator=cpu, but slurm.gpus_per_node",
        ),
        ({"slurm__tasks_per_node": 8, "trainer__accelerator": "gpu"}, "trainer.accelerator=gpu, but"),
        ({"slurm__tasks_per_node": 4, "slurm__gpus_per_node": 8}, "slurm.tasks_per_node=4, but each of the"),
        ({"slurm__time": "tomorrow"}, "slurm.time=tomorrow is not a time limit: give HH:MM:SS or D-HH:MM:SS"),
        ({"slurm__time": 86400}, "slurm.time=86400 is not allowed: it should be a valid string"),
        ({"slurm__sbatch": ["mail"]}, "slurm.sbatch=mail is not an option of sbatch"),
        ({"slurm__partition": "a b"}, "slurm.partition=a b is not allowed"),
    ],
)
def test_contradictions_give_one_line(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        check_world(small_config(tmp_path, **changes))
    assert message in str(error.value)


def test_the_verb_imports_no_torch_and_reports_a_missing_sbatch(resnext, digits: Path, tmp_path: Path):
    """A stub of torch ends every process that imports it."""
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub/torch.py").write_text("raise SystemExit('torch was imported')")
    options = (f"data.root={digits}", "logger=csv", "run=x", "slurm.nodes=2", "slurm.tasks_per_node=4")
    paths = {"PYTHONPATH": str(tmp_path / "stub"), "PATH": "/nonexistent"}
    written = resnext("slurm", *options, "slurm.dry_run=true", **paths)
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "runs/x/job.sbatch").read_text() in written.stdout
    refused = resnext("slurm", *options, **paths)
    assert refused.returncode == 2
    assert refused.stderr == (
        "resnext slurm: sbatch is not installed here: run this on a login node, "
        "or run `sbatch runs/x/job.sbatch` there\n"
    )
    status = resnext("status", **paths)
    assert status.returncode == 0, status.stderr
    assert max(map(len, status.stdout.splitlines())) <= 80
    assert status.stdout.splitlines()[1].split() == ["x", "new"]


@pytest.mark.parametrize(
    ("slurm", "message"),
    [
        (["slurm.tasks_per_node=7"], "recipe.batch_size=64"),
        (["slurm.tasks_per_node=1", "recipe.batch_size=2000"], "recipe.batch_size=2000 is more than"),
        (["slurm.nodes=2"], "give slurm.gpus_per_node=8 (GPUS=8), or slurm.tasks_per_node"),
        (
            ["slurm.tasks_per_node=64", "recipe.mixing.mixup_alpha=0.2"],
            "recipe.mixing mixes the images of a micro-batch",
        ),
        (["slurm.node=2"], "slurm.node is not a configuration key; did you mean slurm.nodes?"),
    ],
)
def test_an_impossible_job_is_refused_on_the_login_node(
    digits: Path, slurm: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert run_verb(["slurm", f"data.root={digits}", *slurm]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_world_is_the_slurm_allocation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    assert World.from_environment() == World(0, 1, 1)
    for name, value in (("PROCID", 5), ("STEP_NUM_TASKS", 8), ("STEP_NUM_NODES", 2)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    world = World.from_environment()
    assert (world, world.devices) == (World(5, 8, 2), 4)
    world.check(small_config(tmp_path).trainer)
    world.check(small_config(tmp_path, trainer__devices=4, trainer__nodes=2).trainer)
    with pytest.raises(UserError, match=r"trainer.devices=8, but the SLURM job has 4 tasks on each node"):
        world.check(small_config(tmp_path, trainer__devices=8).trainer)
    with pytest.raises(UserError, match=r"trainer.nodes=3, but the number of nodes here is 2"):
        world.check(small_config(tmp_path, trainer__nodes=3).trainer)
    with pytest.raises(UserError, match="3 tasks on 2 nodes: give sbatch --ntasks-per-node"):
        World(0, 3, 2).check(small_config(tmp_path).trainer)


@pytest.mark.parametrize(
    ("torchrun", "world"),
    [
        ({"RANK": 5, "WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 4, "GROUP_WORLD_SIZE": 2}, World(5, 8, 2)),
        ({"RANK": 3, "WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 8, "GROUP_WORLD_SIZE": 1}, World(3, 8, 1)),
        ({"RANK": 1, "WORLD_SIZE": 2}, World(1, 2, 1)),
    ],
)
def test_the_nodes_of_torchrun_are_counted(torchrun: dict[str, int], world: World, monkeypatch: pytest.MonkeyPatch):
    for name, value in torchrun.items():
        monkeypatch.setenv(name, str(value))
    assert World.from_environment() == world


def test_torchrun_nodes_must_have_equal_numbers_of_processes(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 3, "GROUP_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match="started 4 processes on 2 nodes, 3 of them on this one: give each node the"):
        World.from_environment()
