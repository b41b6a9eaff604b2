"""Runs the scenarios on a real cluster, which the tests start. Most results are compared with an undisturbed run."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.run.directory import Run
from slurm import scenarios
from slurm.cluster import Cluster, find_obstacle

# The longest first. These scenarios must end like an undisturbed run, and are compared with it.
COMPARED = (
    scenarios.crashed_node,
    scenarios.no_time_to_save,
    scenarios.time_limit,
    scenarios.preemption,
    scenarios.two_requeues,
    scenarios.killed_rank,
    scenarios.late_term,
    scenarios.one_rank_waits,
    scenarios.import_phase,
    scenarios.validation,
    scenarios.after_the_last_step,
    scenarios.two_tasks_a_node_disturbed,
)
UNDISTURBED = {"two_tasks_a_node_disturbed": "two_tasks_a_node"}  # for all others: `undisturbed`
OTHERS = (
    scenarios.dry_run_for_gpus,
    scenarios.undisturbed,
    scenarios.two_tasks_a_node,
    scenarios.killed_too_often,
    scenarios.cancelled,
    scenarios.cancelled_in_the_grace,
    scenarios.users_mistake,
    scenarios.refused_while_queued,
    scenarios.template_by_hand,
    scenarios.sweep_of_jobs,
    scenarios.sweep_by_submitit,
    scenarios.sweep_of_trials,
)
SWEEPS = {
    "test_a_job_of_a_sweep_ends_like_a_single_run": "sweep_by_submitit",
    "test_each_trial_of_a_sweep_ends_like_a_run_alone": "sweep_of_trials",
}
AT_ONCE = 4  # scenarios at the same time; each mostly waits


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits: Path
) -> Iterator[dict[str, Future]]:
    """Scenario name → its result. Starts all scenarios that the selected tests need."""
    if obstacle := find_obstacle():
        pytest.skip(obstacle)
    lab = tmp_path_factory.mktemp("slurm")
    (lab / "data").mkdir()
    (lab / "data/digits").symlink_to(digits)
    with Cluster(7) as cluster:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            ours = [item for item in request.session.items if item.module is request.module]
            asked = {item.callspec.params["name"] if hasattr(item, "callspec") else SWEEPS[item.name] for item in ours}
            asked |= {UNDISTURBED.get(name, "undisturbed") for name in asked}
            begun = [each for each in (*COMPARED[:3], *OTHERS, *COMPARED[3:]) if each.__name__ in asked]
            yield {each.__name__: pool.submit(each, lab, cluster) for each in begun}
        finally:
            pool.shutdown(cancel_futures=True)
            cluster.keep_logs(lab)


@pytest.mark.parametrize("name", [each.__name__ for each in OTHERS])
def test_a_scenario_has_its_expected_end(results: dict[str, Future], name: str):
    """A scenario asserts what it shows; here its AssertionError is raised."""
    results[name].result()


@pytest.mark.parametrize("name", [each.__name__ for each in COMPARED])
def test_a_disturbed_job_ends_like_an_undisturbed_one(results: dict[str, Future], name: str, capsys):
    one, other = (results[each].result().run for each in (UNDISTURBED.get(name, "undisturbed"), name))
    assert run_verb(["compare", str(one), str(other)]) == 0, capsys.readouterr().out


def test_a_job_of_a_sweep_ends_like_a_single_run(results: dict[str, Future], capsys):
    swept = results["sweep_by_submitit"].result()
    assert run_verb(["compare", str(swept), str(swept.with_name("alone"))]) == 0, capsys.readouterr().out


def test_each_trial_of_a_sweep_ends_like_a_run_alone(results: dict[str, Future], capsys):
    runs = results["sweep_of_trials"].result()
    alone = {Run(runs / f"trial-alone-{at}").config.recipe.optimizer.lr: runs / f"trial-alone-{at}" for at in range(4)}
    for number in range(4):
        trial = runs / f"trials-{number}"
        other = alone[Run(trial).config.recipe.optimizer.lr]
        assert run_verb(["compare", str(trial), str(other)]) == 0, capsys.readouterr().out
