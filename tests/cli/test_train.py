"""`resnext train` through the command line: Hydra's arguments, mistakes, and every shipped configuration."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

from resnext.__main__ import VERBS, run_verb
from resnext.config import compose as composition
from resnext.config.compose import CONFIGS, run_with_hydra
from resnext.config.schema import Config
from resnext.errors import RunFailed, UserError
from support.small_run import make_run, small_config, write_images

EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
NO_CHOICES = ("experiment", "sweep")  # the first fixes the choices; the second is for `resnext sweep`
GROUPS = sorted(
    (path.parent.name, path.stem) for path in CONFIGS.glob("*/*.yaml") if path.parent.name not in NO_CHOICES
)


@pytest.fixture(autouse=True)
def _restore_arguments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")


def compose(*overrides: str) -> Config:
    configs: list[Config] = []
    run_with_hydra("train", list(overrides), configs.append)
    return configs[0]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_fixes_the_five_choices(experiment: str):
    config = compose(f"experiment={experiment}")
    text = (CONFIGS / f"experiment/{experiment}.yaml").read_text()
    assert config.experiment == experiment
    assert all(f"override /{group}:" in text for group in ("model", "data", "recipe", "trainer", "logger"))
    assert "# make train" in text


def test_the_docs_and_the_digits_experiment_state_the_same_accuracy():
    header = (CONFIGS / "experiment/resnext_digits.yaml").read_text()
    promised = re.findall(r"\d+\.\d+ % top-1", header)
    assert len(promised) == 1
    assert (
        f"digits, seed 0: {promised[0]} in the best and in the last epoch"
        in (CONFIGS.parent / "docs/promises.md").read_text()
    )


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_every_group_option_composes(group: str, name: str):
    assert compose(f"{group}={name}", "experiment=resnext_digits")


def test_the_imagenet_experiment_uses_torchvisions_recipe():
    config = compose("experiment=resnext50_imagenet", "data.root=/data/imagenet", "trainer.devices=8")
    recipe = config.recipe
    assert (config.model.name, config.data.root, config.data.num_classes) == ("resnext50_32x4d", "/data/imagenet", 1000)
    assert (recipe.optimizer.name, recipe.optimizer.lr, recipe.batch_size, recipe.epochs) == ("momentum", 0.1, 256, 100)
    assert (recipe.optimizer.momentum, recipe.optimizer.weight_decay) == (0.9, 1e-4)
    assert (recipe.schedule.name, recipe.schedule.decay_epochs, recipe.schedule.decay_rate) == ("step", 30, 0.1)
    assert config.split_batch(8) == (32, 1)


def test_a_choice_on_the_command_line_overrides_the_experiment():
    assert compose("experiment=resnext50_imagenet", "recipe=small").recipe.image_size == 8


def test_a_multirun_makes_one_run_per_job():
    configs: list[Config] = []
    run_with_hydra("train", ["-m", "run=sweep", "seed=1,2"], configs.append)
    assert [(config.run, config.seed) for config in configs] == [("sweep-0", 1), ("sweep-1", 2)]
    assert list(Path().iterdir()) in ([], [Path("runs")])


def test_a_sweeper_gets_the_best_accuracy_of_each_job(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The accuracy of the EMA if there is one; None if there was no validation, or if the job failed."""
    seen: list[float | None] = []
    launcher = Plugins.instance().class_name_to_class["hydra._internal.core_plugins.basic_launcher.BasicLauncher"]
    launch = launcher.launch

    def spy(*args, **kwargs):
        jobs = launch(*args, **kwargs)
        seen.extend(job.return_value for job in jobs)
        return jobs

    def train_without_training(run, _parts) -> None:
        if run.path.name == "s-1":
            raise RunFailed("out of luck")
        if run.path.name != "s-2":
            scores = {"val/top1": 0.75, "val/top5": 1.0, "val_ema/top1": 0.8, "val_ema/top5": 1.0}
            run.update_summary(**scores, epochs=1, best_epoch=1, last=scores)

    monkeypatch.setattr(launcher, "launch", spy)
    monkeypatch.setattr("resnext.launch.local.launch", train_without_training)
    small = ["experiment=image_folder", "model=resnext_small", "recipe=small", "recipe.batch_size=8"]
    arguments = ["train", *small, f"data.root={image_folder}", "-m", "run=s"]
    assert run_verb([*arguments, "recipe.ema.decay=null,0.9,0.99"]) == 1
    assert run_verb([*arguments, "run=t", "recipe.ema.decay=0.9"]) == 0
    assert seen == [0.75, None, None, 0.8]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["recipe.optimizer.lrr=0.1"],
            "recipe.optimizer.lrr is not a configuration key; did you mean recipe.optimizer.lr?",
        ),
        (["+recipe.optimizer.lrr=0.1"], "recipe.optimizer.lrr is not a configuration key; did you mean"),
        (["recipe.optimizer.lr=-1"], "recipe.optimizer.lr=-1 is not allowed: it should be greater than 0"),
        (["recipe.epochs=ten"], "recipe.epochs=ten is not allowed: it should be a valid integer"),
        (["experiment=resnext50"], "experiment=resnext50 does not exist; experiment is one of finetune, "),
        (["modle=resnext_small"], "modle is not a configuration key; did you mean model?"),
        (["model=[a,b]"], "model=[a,b] is not allowed: give one name; model is one of resnext101_32x4d, "),
        (["logger=[csv,wandb]"], "logger=[csv,wandb] is not allowed: give one name; logger is one of csv, wandb"),
        (["logger=null"], "logger=null is not allowed: give a name; logger is one of csv, wandb"),
        (["logger@x=csv"], "logger@x=csv: @x is not allowed; give logger=NAME"),
        (["experiment=image_folder.yaml"], "leave out .yaml and give experiment=image_folder"),
        (["-m", "experiment=finetune,image_folder.yaml"], "leave out .yaml and give experiment=image_folder"),
        (["experiment=../experiment/finetune"], "experiment=../experiment/finetune does not exist; experiment is one"),
        (["~logger"], "~logger is not allowed: a run needs every group; logger is one of csv, wandb"),
        (["~recipe.epochs"], "~recipe.epochs is not allowed: a run needs every key; give recipe.epochs=VALUE"),
        (["--config-name", "x"], "--config-name x is not allowed: every run is composed from configs/train.yaml; put"),
        (["--bogus"], "unrecognized arguments: --bogus; `resnext train --help` explains the arguments"),
        (["--cfg", "x"], "argument --cfg/-c: invalid choice: 'x' (choose from 'job', 'hydra', 'all'); `resnext"),
        (["--cfg", "job", "recipe.epochs=-1"], "recipe.epochs=-1 is not allowed: it should be greater than"),
        (["--cfg", "job", "--package", "modle"], "modle is not a configuration key; did you mean model?"),
        (["--cfg", "all", "data=imagenet"], "data=imagenet needs an experiment made for it"),
        (["~modle"], "modle is not a configuration key; did you mean model?"),
        (["recipe.optimizer.lr.x=1"], "recipe.optimizer.lr.x is not a configuration key; did you mean"),
        (["slurm={node: 2}"], "slurm.node is not a configuration key; did you mean slurm.nodes?"),
        (["-m", "seed=1,2", "modle=x"], "modle is not a configuration key; did you mean model?"),
        (["+seed=1"], "+seed=1: seed exists already; leave out the +: seed=1"),
        (["+logger=csv"], "+logger=csv: logger exists already; leave out the +: logger=csv"),
        (["++logger=csv"], "++logger=csv: logger exists already; leave out the ++: logger=csv"),
        (["recipe.batch_size=???"], "recipe.batch_size is missing: give it as recipe.batch_size=VALUE"),
        (["model.name="], "model.name= is not allowed: it should have at least 1 character"),
        (
            ["data.root=a b(c"],
            "data.root=a b(c cannot be read as KEY=VALUE; quote text with spaces or symbols twice",
        ),
        (["nonsense"], "nonsense cannot be read as KEY=VALUE"),
        (["seed=1,2"], "seed=1,2: a run has one value for each key; `resnext train -m` makes one run for each value"),
        (["data.root=/a,/b"], "quote text with a comma twice: 'data.root=\"/a,/b\"'"),
        (["recipe.epochs", "3"], "recipe.epochs: write recipe.epochs=3\n"),
        (["experiment", "finetune"], "experiment: write experiment=finetune\n"),
        (["seed=1", "recipe.epochs"], "recipe.epochs: write recipe.epochs=VALUE\n"),
        (["callbacks.names=x"], "callbacks.names=x is not allowed: give a list: callbacks.names=[x]\n"),
        (["logger.names=x"], "logger.names=x is not allowed: give a list: logger.names=[x]\n"),
        (["recipe.augmentation.scale=1"], "give a list, such as recipe.augmentation.scale=[0.08,1.0]\n"),
        (["recipe.schedule.milestones=3,6"], "give a list in brackets: recipe.schedule.milestones=[3,6]"),
        (["data.root=${nowhere}"], "nowhere"),
        (["run=20250101"], "run=20250101 is not allowed: it should be a valid string; to give text, quote it twice"),
        (['data.root="a\nb"'], "data.root has more than one line: 'a\\nb'"),
        (['experiment="a\nb"'], "experiment"),
        (['slurm.prologue=["a","b\nc"]'], "slurm.prologue has more than one line: 'b\\nc'"),
        (['slurm.partition="a\nb"'], "slurm.partition has more than one line: 'a\\nb'"),
        (['recipe.optimizer.name="a\nb"'], "recipe.optimizer.name has more than one line: 'a\\nb'"),
        (['trainer.precision="bf16\rx"'], "trainer.precision has more than one line: 'bf16\\rx'"),
        (["model=resnext_small", "model.base_width=3"], "model.options.cardinality=8 does not divide"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert run_verb(["train", *overrides]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert output.err.startswith("resnext train: ")
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.root=nowhere"], "nowhere does not exist: give the folder that holds train/CLASS/"),
        (["model.name=resnext50_32x4"], "did you mean resnext50_32x4d?"),
        (["recipe.optimizer.name=sgdd"], "is not an optimizer of timm"),
        (["recipe.batch_size=64"], "recipe.batch_size=64 is more than the 12 training images"),
        (
            ["recipe.batch_size=10", "trainer.micro_batch_size=4"],
            "trainer.micro_batch_size=2 or 5, or recipe.batch_size=8 or",
        ),
        (["model.weights=missing.pth"], "model.weights=missing.pth is not a file"),
        (["recipe.augmentation.auto_augment=foo"], "recipe.augmentation.auto_augment=foo is unknown"),
        (["trainer.accelerator=gpu"], "trainer.accelerator=gpu, but torch finds no CUDA device here"),
        (["data.num_classes=3"], "data.num_classes=3, but"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed needs a GPU; on a CPU use bf16-mixed or 32-true"),
        (["trainer.devices=1000"], "trainer.devices=1000, but this machine has"),
        (["model.name=timm/vgg11", "recipe.drop_path_rate=0.1"], "model.name=timm/vgg11 takes no drop_path_rate"),
        (["model.name=timm/vit_tiny_patch16_224", "recipe.image_size=96"], "does not take images of 96 pixels"),
        (["recipe.schedule.name=wsd", "recipe.epochs=3"], "recipe.schedule.name=wsd over 3 epochs: "),
        (["recipe.optimizer.name=fusedsgd"], "recipe.optimizer.name=fusedsgd cannot be built here"),
        ([f"run={'x' * 300}"], "File name too long"),
        (["trainer.nodes=2"], "trainer.nodes=2: this command trains on one machine"),
    ],
)
def test_a_configuration_that_cannot_train_is_refused_before_a_run_is_made(
    image_folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    given = {override.partition("=")[0] for override in arguments}
    root = [] if "data.root" in given else [f"data.root={image_folder}"]
    batch = [] if "recipe.batch_size" in given else ["recipe.batch_size=8"]
    small = [] if "model.name" in given else ["model=resnext_small"]
    assert run_verb(["train", "experiment=image_folder", *small, *root, *batch, *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert list(Path().glob("runs/*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.root=${oc.env:MY_TOKEN}"], "data.root: ${oc.env:MY_TOKEN} looks like a secret"),
        (["data.root=x/${oc.env:MY_TOKEN,none}"], "data.root: ${oc.env:MY_TOKEN} looks like a secret"),
        (['data.root="${oc.env:${oc.env:WHICH}}"'], "data.root: ${oc.env:MY_TOKEN} looks like a secret"),
        (["data.root=${oc.env:SERVER}"], "data.root holds an address with a user or a password"),
        (["-m", "seed=1,2", "data.root='https://me:hunter2@host/x'"], "data.root holds an address with"),
        (["slurm.prologue=['export MY_TOKEN=hunter2']"], "slurm.prologue holds a value for MY_TOKEN"),
    ],
)
def test_secrets_are_refused_and_not_shown(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch):
    """A run stores its configuration as plain text, a multirun stores its overrides, and both are sent to W&B."""
    for name, value in {"MY_TOKEN": "hunter2", "WHICH": "MY_TOKEN", "SERVER": "https://me:hunter2@host"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        compose(*arguments)
    assert str(error.value).startswith(message)
    assert "hunter2" not in str(error.value)
    assert not list(Path().glob("runs/*.yaml"))
    assert compose("data.root=/x/${oc.env:WHICH}").data.root == "/x/MY_TOKEN"


def test_missing_imagenet_says_how_to_give_its_folder(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("RESNEXT_DATA", "/nowhere")
    assert run_verb(["train", "experiment=resnext50_imagenet"]) == 2
    assert "data.root=/nowhere/imagenet does not exist: give the folder of ImageNet" in capsys.readouterr().err


MISTAKES = {
    ("train", "recipe.epochs=0"): "recipe.epochs=0 is not allowed",
    ("train", "model.weights=missing.pt"): "model.weights=missing.pt is not a file",
    ("resume", "nowhere"): "nowhere is not a run directory: the latest runs are runs/test;",
    ("resume", "test", "recipe.epoch=3"): "recipe.epoch is not a configuration key",
    ("resume", "test", "recipe.epochs", "3"): "recipe.epochs: write recipe.epochs=3",
    ("resume", "test", "recipe.epochs=1"): "runs/test has recipe.epochs=2, and 1 was given; they can only be raised",
    ("resume", "test", "seed=1"): "runs/test is another run: seed was 0 and is now 1",
    ("resume", "test", "data.root=gone"): "data.root=",
    ("evaluate", "nowhere"): "nowhere is not a run directory: the latest",
    ("evaluate", "test", "seed.x=1"): "seed.x is not a configuration key",
    ("evaluate", "test", "seed=1"): "runs/test is another run: seed was 0",
    ("evaluate", "test", "--checkpoint=previous"): "argument --checkpoint: invalid choice: 'previous'",
    ("evaluate", "test"): "runs/test/checkpoints/best.ckpt does not exist: the run is new and has not written it",
}


def test_a_cheap_mistake_is_reported_without_the_import_of_torch(image_folder: Path):
    make_run(small_config(image_folder, recipe__batch_size=8))
    code = (
        "import sys; from resnext.__main__ import run_verb\n"
        f"for each in {list(MISTAKES)}: assert run_verb([*each]) == 2\n"
        "assert not {'torch', 'lightning', 'timm', 'wandb'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(MISTAKES)
    for line, (arguments, mistake) in zip(lines, MISTAKES.items(), strict=True):
        assert line.startswith(f"resnext {arguments[0]}: {mistake}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "nowhere", "--checkpoint", "last", "data.workers=0"],
        ["evaluate", "--checkpoint=last", "nowhere", "data.workers=0"],
        ["evaluate", "nowhere", "data.workers=0", "--checkpoint", "last", "trainer.accelerator=cpu"],
    ],
    ids=" ".join,
)
def test_options_and_overrides_may_have_any_order(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert run_verb(arguments) == 2
    assert capsys.readouterr().err.startswith("resnext evaluate: nowhere is not a run directory")


def test_hydras_flags_and_overrides_may_have_any_order(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["train", "seed=3", "--cfg", "job", "recipe=a3", "--resolve", "run=x"]) == 0
    output = capsys.readouterr().out
    assert "seed: 3\n" in output
    assert "batch_size: 2048\n" in output
    configs: list[Config] = []
    run_with_hydra("train", ["seed=1,2", "-m", "run=s"], configs.append)
    assert [config.seed for config in configs] == [1, 2]


def test_another_data_set_needs_its_experiment():
    with pytest.raises(UserError, match=r"^data=imagenet needs an experiment .* or resnext50_imagenet, or both"):
        compose("data=imagenet")
    with pytest.raises(UserError, match=r"^data=cifar10 needs an experiment .* experiment=resnext29_cifar10, or both"):
        compose("recipe=cifar_paper", "data=cifar10")
    assert compose("data=digits").data.name == "digits"
    assert compose("data=cifar100", "experiment=resnext29_cifar10").data.name == "cifar100"


def test_hydras_own_arguments_work(resnext):
    configuration = resnext("train", "--cfg", "job", "experiment=resnext50_imagenet")
    assert "name: resnext50_32x4d" in configuration.stdout
    script = resnext("train", "-sc", "install=bash").stdout
    assert script.rstrip().endswith("hydra_bash_completion resnext")


def test_completion_works_through_the_installed_script(resnext):
    line = "resnext train recipe.optimizer.lr"
    completion = resnext("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)), COMP_CWORD="2")
    assert completion.stdout.split() == ["recipe.optimizer.lr="]
    verbs = resnext("-sc", "query=bash", COMP_LINE="resnext re", COMP_POINT="10", COMP_CWORD="1")
    assert verbs.stdout.split() == [*VERBS]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("slurm slurm.gpus_per_n", ["slurm.gpus_per_node="]),
        ("slurm experiment=resnext_digits recipe.optimizer.lr", ["recipe.optimizer.lr="]),
        ("recipes a3 recipe.optimizer.lr", ["recipe.optimizer.lr="]),
        ("recipes a", []),
        ("resume ru", ["runs/one", "runs/two"]),
        ("status runs/one t", ["runs/one", "runs/two"]),
        ("prepare ima", []),
    ],
)
def test_completion_of_other_verbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], line: str, expected: list[str]
):
    for name in ("two", "one", ".new-run"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
    (tmp_path / "runs/multirun.yaml").touch()
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name, value in {"LINE": f"resnext {line}", "POINT": str(len(line) + 8), "CWORD": "9"}.items():
        monkeypatch.setenv(f"COMP_{name}", value)
    assert run_verb(["-sc", "query=bash"]) == 0
    output = capfd.readouterr()
    assert (output.out.split(), output.err) == (expected, "")


def test_every_verb_has_help(resnext):
    text = resnext("--help").stdout
    assert all(verb in text for verb in VERBS)
    for verb in VERBS.keys() - {"train", "slurm"}:
        assert f"usage: resnext {verb}" in resnext(verb, "--help").stdout


def test_an_unknown_verb_is_refused(resnext):
    result = resnext("tarin")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"resnext tarin: unknown verb; the verbs are {', '.join(VERBS)}; did you mean train?\n"
    assert resnext("x").stderr == f"resnext x: unknown verb; the verbs are {', '.join(VERBS)}\n"


def test_overrides_on_a_run_are_checked(tmp_path: Path):
    write_images(tmp_path / "i", {"train/a": 1})
    config = compose("data.root=i", "run=x")
    changed = composition.apply_overrides(config, ["trainer.devices=2", "data.root='i'"])
    assert (changed.trainer.devices, changed.data.root) == (2, str(tmp_path / "i"))
    with pytest.raises(UserError, match="a run has one value for each key"):
        composition.apply_overrides(config, ["trainer.devices=1,2"])
    with pytest.raises(UserError, match=r"trainer.device is not a configuration key; did you mean trainer.devices\?"):
        composition.apply_overrides(config, ["trainer.device=2"])
    with pytest.raises(UserError, match=r"data.root holds an address with a user or a password"):
        composition.apply_overrides(config, ["data.root='s3://key:hunter2@bucket'"])
    with pytest.raises(UserError, match=r"^\+seed=1: seed exists already; leave out the \+: seed=1"):
        composition.apply_overrides(config, ["+seed=1"])
    with pytest.raises(UserError, match=r"^hydra.run.dir is not a configuration key"):
        composition.apply_overrides(config, ["hydra.run.dir=elsewhere"])
