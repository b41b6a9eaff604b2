"""The help page of `resnext train`, `slurm` and `check`: Hydra's own page has 190 lines, and not its flags."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from resnext.config.folders import config_names
from resnext.terminal import COLUMNS

GROUPS = {  # in the order of an experiment file
    "experiment": "fixes the five choices below",
    "model": "what is trained",
    "data": "on which images",
    "recipe": "how: optimizer, schedule, loss, augmentation, epochs",
    "trainer": "on which devices",
    "logger": "where the metrics go",
    "slurm": "the SLURM allocation",
}
PAGE = """usage: resnext {verb} [GROUP=NAME ...] [KEY=VALUE ...] [FLAGS]

{summary}

groups (GROUP=NAME chooses one file of each):
{groups}

keys (KEY=VALUE changes one, such as recipe.epochs=10 or run=NAME):
  `resnext {verb} --cfg job` prints all keys with their values. The same with
  experiment=NAME or -p recipe prints those of a choice, or only a part of them.

flags:
{flags}  -cd, --config-dir DIR   files of your own: DIR/experiment/NAME.yaml and so on
  -c, --cfg job           print the configuration and do nothing else
  -p, --package KEY       with --cfg: print only this part
  --resolve               with --cfg: replace each ${{…}} by its value
  -i, --info defaults     print which file every part comes from
  -sc install=bash        print a script for completion with Tab
  --hydra-help            the other flags of Hydra

examples:
{examples}
"""
SUMMARIES = {
    "train": "Makes a run in runs/ and trains it. If run=NAME exists, resumes it.",
    "slurm": "Makes a run in runs/ and submits it as a SLURM job.",
    "check": (
        "Shows what can be known about a training before it starts: its images, batches, memory, speed and hours. "
        "It makes no run. The exit code is 1 if the training would fail, or would not learn."
    ),
}
MULTIRUN = "  -m, --multirun          one run for each value: -m recipe.optimizer.lr=0.1,0.2"
FLAGS = {
    "train": (MULTIRUN,),
    "check": (
        "  --full                  read every image file, and not a sample",
        "  --price-per-hour PRICE  of one device: prints what the training would cost",
        "  --json                  print the findings and the measured values as JSON",
    ),
    "slurm": (MULTIRUN,),
}
EXAMPLES = {
    "train": (
        "resnext train experiment=finetune data.root=/my/photos run=tuned",
        "resnext train experiment=mine --config-dir ~/my-configs recipe.epochs=10",
        "resnext train -m run=sweep recipe.optimizer.lr=0.05,0.1,0.2",
    ),
    "check": (
        "resnext check experiment=finetune data.root=/my/photos",
        "resnext check experiment=finetune slurm.nodes=4 slurm.gpus_per_node=8",
    ),
    "slurm": (
        "resnext slurm experiment=finetune data.root=/my/photos slurm.gpus_per_node=1",
        "resnext slurm experiment=mine --config-dir ~/my-configs slurm.tasks_per_node=2",
        "resnext slurm -m run=sweep slurm.gpus_per_node=1 seed=1,2,3",
    ),
}


def train_page(verb: str, folders: Sequence[Path]) -> str:
    """The help of `verb`, with the names in `folders`."""
    groups = [
        textwrap.fill(
            f"{', '.join(config_names(folders, group))} ({meaning})",
            COLUMNS,
            initial_indent=f"  {group:11}",
            subsequent_indent=" " * 13,
            break_on_hyphens=False,
        )
        for group, meaning in GROUPS.items()
    ]
    summary = textwrap.fill(SUMMARIES[verb], COLUMNS)
    examples = "\n".join(f"  {line}" for line in EXAMPLES[verb])
    flags = "".join(f"{line}\n" for line in FLAGS[verb])
    return PAGE.format(verb=verb, summary=summary, groups="\n".join(groups), flags=flags, examples=examples).rstrip()
