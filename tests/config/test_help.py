"""The help of `train` and `slurm` is our own page, short and in step with the configuration files and Hydra's flags."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.config.compose import CONFIGS, compose
from resnext.config.hydra_settings import parse_arguments


@pytest.mark.parametrize("verb", ["train", "check", "slurm"])
def test_the_page_fits_a_screen_and_names_every_choice(verb: str, capsys: pytest.CaptureFixture[str]):
    assert run_verb([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    words = {word.strip(",") for line in lines for word in line.split()}
    assert {path.stem for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "sweep"} <= words
    assert f"`resnext {verb} --cfg job` prints all keys" in "\n".join(lines)


def test_a_folder_of_the_user_adds_its_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/quick.yaml").touch()
    assert run_verb(["train", "-h", "--config-dir", str(tmp_path), "recipe=nonsense"]) == 0
    assert " quick, " in capsys.readouterr().out


def test_the_flags_and_examples_of_the_page_are_accepted(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["train", "--help"]) == 0
    page = capsys.readouterr().out
    flags, examples = page.split("flags:\n")[1].split("examples:\n")
    for line in flags.strip().splitlines():
        *others, last = re.sub(" {2,}.*", "", line.strip()).replace("DIR", "x").replace("KEY", "seed").split(", ")
        value = last.split()[1:]
        for words in (last.split(), *([*other.split(), *value] for other in others)):
            parse_arguments(words)
    for line in examples.strip().splitlines():
        words = [word for word in line.split() if "=" in word and "," not in word]
        assert compose([word for word in words if word != "experiment=mine"])


def test_the_page_imports_no_torch():
    code = (
        "import sys; from resnext.__main__ import run_verb; assert run_verb(['slurm', '--help']) == 0;"
        "assert not {'lightning', 'timm', 'wandb'} & sys.modules.keys() and 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
