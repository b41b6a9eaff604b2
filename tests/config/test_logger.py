"""logger.names: W&B by name, and a package that is not installed."""

from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.config import logger as module
from resnext.config.logger import MlflowOptions
from resnext.errors import UserError
from support.small_run import small_config


def test_names_are_those_of_registered_loggers(tmp_path: Path):
    names = ["wandb", "tensorboard", "mlflow"]
    found = small_config(
        tmp_path, logger={"mode": "offline", "names": names, "options": {"mlflow": {"experiment": "e"}}}
    )
    assert list(found.logger.options) == names
    assert found.logger.options["mlflow"] == MlflowOptions(experiment="e")
    with pytest.raises(
        UserError, match=r"logger.names=tensorbord is not a registered logger; did you mean tensorboard"
    ):
        small_config(tmp_path, logger__names=["tensorbord"])
    with pytest.raises(UserError, match=r"logger.names has wandb, but logger.mode=disabled: set logger.mode=auto, or"):
        small_config(tmp_path, logger__names=["wandb"])


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
@pytest.mark.parametrize("verb", ["train", "slurm"])
def test_a_package_that_is_not_installed_is_one_line_before_a_run_is_made(
    name: str, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    assert run_verb([verb, f"logger.names=[{name}]"]) == 2
    expected = f"logger.names={name} needs {name}, which is not installed: pip install -e '.[{name}]' installs it"
    assert capsys.readouterr().err == f"resnext {verb}: {expected}\n"
    assert not Path("runs").exists()
