"""Result: what a sweep has found so far, for the terminal and as JSON."""

import functools
import shlex
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from resnext.config.sweep import SweepConfig
from resnext.run.directory import RUNS
from resnext.sweep.command import best_command
from resnext.sweep.families import Member, conclusions, find_members, member_lines
from resnext.sweep.folder import SweepFolder
from resnext.sweep.journal import Journal
from resnext.sweep.table import rank, short_names, show_table, to_plain
from resnext.sweep.trial import Trial, read_runs
from resnext.sweep.trials import read_trials
from resnext.terminal import COLUMNS, pluralize

LEAST_TRIALS = 4  # complete ones, for importances


@dataclass(frozen=True)
class Result:
    name: str
    config: SweepConfig
    trials: Sequence[Trial]
    study: optuna.Study

    @property
    def best(self) -> Trial | None:
        """The best complete trial."""
        ranked = [trial for trial in rank(self.trials, self.config.direction) if trial.state == "complete"]
        return ranked[0] if ranked else None

    @property
    def importances(self) -> dict[str, float]:
        """The share of the variance that each key explains, by Optuna's fANOVA; empty with too few complete trials."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        if len(complete) < LEAST_TRIALS or len({trial.value for trial in complete}) == 1 or self.config.points:
            return {}
        with warnings.catch_warnings(action="ignore"):
            return get_param_importances(self.study, evaluator=FanovaImportanceEvaluator(seed=0))

    @property
    def members(self) -> list[Member]:
        """The families of a sweep over named points; empty for a space."""
        return find_members(RUNS / self.name, self.config, self.trials) if self.config.points else []

    @property
    def best_command(self) -> tuple[str, str] | None:
        """The command that trains the best trial at full length, and a note of what it leaves out."""
        if self.best is None:
            return None
        overrides, left_out = best_command(self.config, self.best)
        folder = [] if self.config.config_dir is None else ["--config-dir", self.config.config_dir]
        command = shlex.join(["resnext", "train", *overrides, f"run={self.name}-best", *folder])
        return command, f"without {', '.join(left_out)}, which shortens the sweep" if left_out else ""

    def lines(self) -> list[str]:
        states = [trial.state for trial in self.trials]
        counts = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed", "open")]
        counts = [each for each in counts if not each.startswith("0 ")]
        lines = [f"{pluralize(len(states), 'trial')}: {', '.join(counts)}" if states else "no trial yet"]
        lines += show_table(self.trials, self.config.direction) if states else []
        if members := self.members:
            lines += ["", *member_lines(members), ""]
            for sentence in conclusions(members, self.config.direction):
                lines += textwrap.wrap(sentence, COLUMNS, subsequent_indent="  ")
        lines += [f"trial {trial.number} failed: {trial.error}" for trial in self.trials if trial.state == "failed"]
        if importances := self.importances:
            names = short_names([*importances])
            shown = ", ".join(f"{names[key]} {100 * share:.0f} %" for key, share in importances.items())
            lines += textwrap.wrap(f"importance  {shown}", COLUMNS, subsequent_indent=" " * 12)
        if (best := self.best_command) is not None:
            command, note = best
            lines += [f"best      trial {self.best.number if self.best else ''}; at full length{note and ', ' + note}:"]
            lines += [f"  {command}"]
        return lines

    def to_plain(self) -> dict[str, Any]:
        best, command = self.best, self.best_command
        return {
            "name": self.name,
            "direction": self.config.direction,
            "trials": [to_plain(trial, self.config.direction) for trial in self.trials],
            "best": best.number if best is not None else None,
            "best_command": command[0] if command is not None else None,
            "importances": self.importances,
        }


def read_result(folder: SweepFolder) -> Result:
    """What the sweep has found so far; a damaged run has no result.

    Raises:
        UserError: if the journal is damaged.
    """
    config = folder.config
    journal = Journal(folder.journal_path, config.direction, writes=False)
    find_runs = functools.partial(read_runs, damage=Exception)
    return Result(folder.name, config, read_trials(folder.name, config, journal, find_runs), journal.study)
