"""A configuration file is data: no setting of Hydra in it can run code or write a file."""

import pickle
import shutil
import sys
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.config import compose as composition
from resnext.config.compose import run_with_hydra
from resnext.config.schema import Config
from resnext.errors import UserError

EVIL = """# @package _global_
defaults:
  - override /model: resnext_small
  - override /data: digits
  - override /recipe: small
"""


class Canary:
    """Unpickling this object creates the file `canary`."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("canary"),)


@pytest.fixture(autouse=True)
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of configs/ that a test may change, beside the files that the payloads read."""
    folder = tmp_path / "configs"
    shutil.copytree(composition.CONFIGS, folder)
    monkeypatch.setattr(composition, "CONFIGS", folder)
    monkeypatch.setattr(sys, "argv", sys.argv)
    Path("source").write_text("copied")
    Path("victim").write_text("precious")
    Path("canary.pkl").write_bytes(pickle.dumps(Canary()))
    return folder


@pytest.fixture(autouse=True)
def _nothing_has_run():
    yield
    assert not Path("canary").exists()
    assert Path("victim").read_text() == "precious"
    assert not list(Path().glob("**/elsewhere*"))


def compose(*arguments: str) -> list[Config]:
    configs: list[Config] = []
    run_with_hydra("train", list(arguments), configs.append)
    return configs


def refusal(*arguments: str) -> str:
    """The one-line error for the arguments, raised before any configuration is used."""
    used: list[Config] = []
    with pytest.raises(UserError, match=r"^[^\n]+$") as error:
        run_with_hydra("train", list(arguments), used.append)
    assert used == []
    return str(error.value)


PAYLOADS = {
    "callbacks": """
hydra:
  callbacks:
    x: {_target_: numpy.load, file: canary.pkl, allow_pickle: true}
""",
    "callbacks that copy": """
hydra:
  callbacks:
    x: {_target_: shutil.copyfile, src: source, dst: victim}
""",
    "callbacks that torch loads": """
hydra:
  callbacks:
    x: {_target_: torch.load, f: canary.pkl, weights_only: false}
""",
    "job_logging ()": """
hydra:
  job_logging:
    root: {level: INFO, handlers: [x]}
    handlers:
      x: {(): numpy.load, file: canary.pkl, allow_pickle: true}
""",
    "job_logging class": """
hydra:
  job_logging:
    root: {level: INFO, handlers: [x]}
    handlers:
      x: {class: logging.FileHandler, filename: victim, mode: w}
""",
    "hydra_logging class": """
hydra:
  hydra_logging:
    root: {level: INFO, handlers: [x]}
    handlers:
      x: {class: logging.FileHandler, filename: victim, mode: w}
""",
    "run.dir": """
hydra:
  run: {dir: elsewhere}
""",
    "output_subdir": """
hydra:
  output_subdir: elsewhere
""",
    "job.env_set": """
hydra:
  job: {env_set: {LD_PRELOAD: ./evil.so}}
""",
    "overrides": """
hydra:
  overrides:
    hydra: ["hydra.run.dir=elsewhere"]
""",
    "mode": """
hydra: {mode: MULTIRUN}
""",
    "launcher._target_": """
hydra:
  launcher: {_target_: hydra_plugins.evil.Launcher}
""",
    "searchpath": """
hydra: {searchpath: [pkg://evil]}
""",
}


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("mode", [[], ["-m", "seed=1,2"]], ids=["run", "multirun"])
def test_hydra_settings_in_an_experiment_are_refused(configs: Path, payload: str, mode: list[str]):
    (configs / "experiment/evil.yaml").write_text(EVIL + PAYLOADS[payload])
    line = refusal("experiment=evil", *mode)
    assert f"hydra.{payload.split()[0].partition('.')[0]}" in line


def test_a_yaml_tag_is_refused(configs: Path):
    (configs / "experiment/evil.yaml").write_text("seed: !!python/object/apply:pathlib.Path.touch [canary]\n")
    assert "experiment/evil.yaml" in refusal("experiment=evil")


def test_hydra_settings_in_one_experiment_of_a_multirun_are_refused(configs: Path):
    (configs / "experiment/evil.yaml").write_text(EVIL + PAYLOADS["job_logging class"])
    assert "hydra.job_logging" in refusal("-m", "experiment=resnext_digits,evil")


def test_resnext_slurm_refuses_hydra_settings_too(configs: Path, capsys: pytest.CaptureFixture[str]):
    (configs / "experiment/evil.yaml").write_text(EVIL + PAYLOADS["callbacks"])
    assert run_verb(["slurm", "experiment=evil", "slurm.tasks_per_node=1", "slurm.dry_run=true"]) == 2
    assert capsys.readouterr().err.startswith("resnext slurm: hydra.callbacks")
    assert not Path("runs").exists()


OTHER_FILES = {
    "a recipe in hydra's package": ("recipe/evil.yaml", "# @package hydra.callbacks\nx: {_target_: pathlib.Path}\n"),
    "a new logging file": ("hydra/job_logging/evil.yaml", "version: 1\nroot: {level: INFO}\n"),
    "a new launcher": (
        "hydra/launcher/evil.yaml",
        "_target_: hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher\n",
    ),
    "a launcher in place of basic": ("hydra/launcher/basic.yaml", "_target_: hydra_plugins.evil.Launcher\n"),
    "new callbacks": ("hydra/callbacks/evil.yaml", "x: {_target_: pathlib.Path}\n"),
}


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/basic' is validated:UserWarning")
@pytest.mark.parametrize("name", OTHER_FILES)
def test_hydra_settings_in_other_files_are_refused(configs: Path, name: str):
    path, text = OTHER_FILES[name]
    group, _, stem = path.removesuffix(".yaml").rpartition("/")
    (configs / path).parent.mkdir(parents=True, exist_ok=True)
    (configs / path).write_text(text)
    defaults = f"  - override /{group}: {stem}\n" if "recipe" not in group else ""
    (configs / "experiment/evil.yaml").write_text(EVIL + defaults)
    chosen = ["recipe=evil"] if "recipe" in group else []
    assert "hydra" in refusal("experiment=evil", *chosen)


@pytest.mark.parametrize(
    "arguments",
    [
        ["hydra/job_logging=default"],
        ["hydra/hydra_logging=hydra_debug"],
        ["hydra/callbacks=x"],
        ["hydra.run.dir=elsewhere"],
        ["hydra.sweep.dir=elsewhere", "-m"],
        ["hydra.output_subdir=elsewhere"],
        ["hydra.searchpath=[file://elsewhere]"],
        ["hydra.verbose=true"],
        ["hydra.mode=MULTIRUN"],
        ["+hydra.callbacks.x._target_=numpy.load"],
        ["++hydra.job.chdir=true"],
        ["+hydra={callbacks: {x: {_target_: pathlib.Path}}}"],
        ["~hydra.callbacks"],
        ["~hydra/launcher"],
        ["+recipe@hydra.callbacks=small"],
        ["hydra.launcher._target_=numpy.load"],
        ["hydra.sweeper._target_=numpy.load"],
        ["hydra/launcher=evil"],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.submitit_folder=elsewhere"],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.setup=[touch canary]"],
        ["hydra/launcher=submitit_slurm", "+hydra.launcher.additional_parameters.output=elsewhere"],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=soon"],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=${oc.env:HOME}"],
        ["hydra/launcher=submitit_slurm", 'hydra.launcher.comment="a\ntouch canary"'],
        ["--config-path=elsewhere"],
        ["--config-name", "elsewhere"],
        ["--experimental-rerun", "canary.pkl"],
        ["--experimental=canary.pkl"],
    ],
    ids=" ".join,
)
def test_hydra_settings_on_the_command_line_are_refused(arguments: list[str]):
    line = refusal(*arguments)
    assert "hydra" in line or line.startswith(("--config-", "--experimental-rerun canary.pkl is not allowed"))


def test_launchers_and_sweepers_can_be_chosen_by_name_with_options(configs: Path):
    choice = "  - override /hydra/launcher: submitit_slurm\n"
    options = "hydra:\n  launcher: {timeout_min: 600, max_num_timeout: 20, partition: gpu}\n"
    sweep = 'hydra:\n  sweeper: {params: {seed: "1,2"}}\n'
    (configs / "experiment/cluster.yaml").write_text(EVIL + choice + options)
    (configs / "experiment/sweep.yaml").write_text(EVIL + sweep)
    assert len(compose("experiment=cluster", '+hydra.launcher.exclude="node[3-7]"', "hydra.launcher.nodes=2")) == 1
    jobs = compose("-m", "experiment=sweep", "hydra/launcher=basic", "hydra/sweeper=basic", "run=s")
    assert [(job.run, job.seed) for job in jobs] == [("s-0", 1), ("s-1", 2)]


def test_hydra_settings_in_sweep_parameters_are_refused(configs: Path):
    (configs / "experiment/sweep.yaml").write_text(EVIL + "hydra:\n  sweeper: {params: {hydra.run.dir: elsewhere}}\n")
    assert refusal("-m", "experiment=sweep").startswith("hydra.run.dir=elsewhere cannot be set")


@pytest.mark.parametrize(
    "params",
    [
        "notify.command: touch canary",
        "+notify.command: touch canary",
        'notify: "{command: touch canary}"',
        "notify: {command: touch canary}",
        'slurm.prologue: "[touch canary]"',
        'slurm: "{sbatch: [touch canary]}"',
    ],
)
def test_shell_lines_in_sweep_parameters_are_refused(configs: Path, params: str):
    content = EVIL + "hydra:\n  sweeper:\n    params: {" + params + "}\n"
    (configs / "experiment/sweep.yaml").write_text(content)
    error = refusal("-m", "experiment=sweep")
    assert error.startswith("hydra.sweeper.params")
    assert "notify.* and slurm.* themselves on the command line" in error


def test_only_a_clusters_file_or_the_command_line_may_set_shell_lines(configs: Path):
    (configs / "experiment/evil.yaml").write_text(EVIL + "slurm:\n  prologue: [touch canary]\n")
    (configs / "experiment/itself.yaml").write_text(
        EVIL.replace("small\n", "small\n  - override /slurm: ../experiment/shell\n")
    )
    (configs / "experiment/shell.yaml").write_text("# @package _global_\nslurm:\n  sbatch: [--output=elsewhere]\n")
    (configs / "slurm/ours.yaml").write_text("defaults: [cpu, _self_]\nprologue: [module load cuda]\n")
    (configs / "experiment/cluster.yaml").write_text(EVIL + "  - override /slurm: ours\n")
    assert refusal("experiment=evil").startswith("slurm.prologue holds shell lines: give them in configs/slurm/")
    assert refusal("experiment=itself").startswith("slurm.sbatch holds shell lines")
    for cluster in ("cpu", "default", "ours"):
        assert refusal(f"slurm={cluster}", "experiment=evil").startswith("slurm.prologue holds shell lines")
    for arguments in (["experiment=cluster"], ["slurm=ours"], ["experiment=evil", "slurm.prologue=[module load cuda]"]):
        assert compose(*arguments)[0].slurm.prologue == ("module load cuda",)


def test_only_the_command_line_may_set_the_command_of_a_notification(configs: Path):
    (configs / "experiment/evil.yaml").write_text(EVIL + "notify:\n  command: touch canary\n")
    (configs / "experiment/late.yaml").write_text(EVIL + 'notify: "${oc.select:hydra.verbose,{command: x}}"\n')
    for name in ("evil", "late"):
        assert refusal(f"experiment={name}").startswith("notify.command is a shell line: give it on the command line")
    for given in ("notify.command='echo $RESNEXT_TOP1, done'", "notify={command:'echo $RESNEXT_TOP1, done'}"):
        assert compose("experiment=evil", given)[0].notify.command == "echo $RESNEXT_TOP1, done"


def test_a_shell_line_that_could_change_after_the_check_is_refused(configs: Path):
    """The hydra node exists during composition but not in the job, and another file can set slurm.account."""
    late = "slurm:\n  prologue: ${oc.select:hydra.verbose,[touch canary]}\n"
    (configs / "experiment/late.yaml").write_text(EVIL + late)
    (configs / "slurm/ours.yaml").write_text('defaults: [cpu, _self_]\nprologue: ["module load ${slurm.account}"]\n')
    (configs / "experiment/account.yaml").write_text(EVIL + 'slurm:\n  account: "x;touch canary"\n')
    assert refusal("experiment=late").startswith("slurm.prologue holds shell lines")
    assert refusal("experiment=account", "slurm=ours").startswith("slurm.prologue holds ${…}, and another file")


@pytest.mark.parametrize("text", ["slurm: null", "hydra: null", "# \xe9"])
def test_a_file_that_cannot_be_composed_gives_one_line(configs: Path, text: str):
    (configs / "experiment/odd.yaml").write_bytes((EVIL + text + "\n").encode("latin-1"))
    assert "\n" not in refusal("experiment=odd")
    assert compose("data=digits")  # other files still compose
