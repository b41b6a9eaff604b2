"""check_space: what can be wrong with the values of a sweep, before its first run."""

from collections.abc import Callable

from resnext.config.schema import Config
from resnext.config.sweep import SweepConfig
from resnext.errors import UserError
from resnext.run.metrics import metric_columns
from resnext.sweep.space import Params, SearchSpace


def check_space(config: SweepConfig, compose: Callable[[list[str]], Config]) -> None:
    """Composes a run with each value of each key.

    Raises:
        UserError: for the first value that a run would refuse, a metric that the runs do not have, and trials that
            cannot be compared.
    """
    space = SearchSpace(config)
    composed = [compose_example(config, space, compose, *pair) for pair in space.examples()]
    for each in composed:
        _check_metric(config, each)
    metrics = {each.recipe.best_by for each in composed}
    if config.metric is None and len(metrics) > 1:
        raise UserError(f"the trials have different metrics ({', '.join(sorted(metrics))}): give sweep.metric=val/top1")
    epochs = {each.recipe.epochs for each in composed}
    if config.pruner != "none" and len(epochs) > 1:
        raise UserError(
            f"sweep.pruner={config.pruner} compares trials at the same epochs: give all trials the same recipe.epochs"
        )


def compose_example(
    config: SweepConfig, space: SearchSpace, compose: Callable[[list[str]], Config], params: Params, others: Params
) -> Config:
    """Composes a run with `params`. If a run would refuse them, with `others`, which have one value in common."""
    try:
        return compose([*config.overrides, *space.overrides(params)])
    except UserError as error:
        try:
            return compose([*config.overrides, *space.overrides(others)])
        except UserError:
            raise error from None


def uses_cpu(config: SweepConfig, compose: Callable[[list[str]], Config]) -> bool:
    """Whether the runs ask for a CPU, also on a machine with GPUs."""
    space = SearchSpace(config)
    return compose_example(config, space, compose, *space.examples()[0]).trainer.accelerator == "cpu"


def _check_metric(config: SweepConfig, composed: Config) -> None:
    average = composed.recipe.ema.decay is not None
    columns = metric_columns(composed.recipe.evaluation.metrics, average=average)
    known = [each for each in columns if each.startswith("val")]
    if config.metric is not None and config.metric not in known:
        raise UserError(f"sweep.metric={config.metric} is not a metric of these runs: they have {', '.join(known)}")
