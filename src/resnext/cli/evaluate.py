"""resnext evaluate RUN: compute the validation accuracy of a checkpoint."""

from dataclasses import replace
from pathlib import Path

from resnext.cli.arguments import ArgumentParser
from resnext.terminal import pluralize


def main(arguments: list[str]) -> int:
    parser = ArgumentParser("resnext evaluate", description="Validate a checkpoint of a run; each image counts once.")
    parser.add_argument("run", type=Path, help="the run directory, runs/NAME")
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), default="best", help="which checkpoint (default: best)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="config override, such as data.root=PATH for other images of the same classes "
        "(PATH/val is enough), recipe.evaluation.image_size=288 or trainer.accelerator=cpu",
    )
    options = parser.parse_intermixed_args(arguments)

    from resnext.config.compose import apply_overrides
    from resnext.run.directory import Run
    from resnext.run.run_files import find_checkpoint

    run = Run.open(options.run)
    config = apply_overrides(run.config, options.overrides)
    own = replace(config.recipe, evaluation=run.config.recipe.evaluation)  # recipe.evaluation may change
    run.check_identity(replace(config, recipe=own), run.data_identity)
    find_checkpoint(run.path, options.checkpoint)

    from resnext.inference.evaluate import evaluate  # imports torch, so that a mistake is reported first

    evaluation = evaluate(run, config, options.checkpoint)
    where = f" in {evaluation.elsewhere}, which are not the run's own" if evaluation.elsewhere else ""
    images = pluralize(evaluation.scores.images, "image") + where
    print(f"{run.path}/checkpoints/{options.checkpoint}.ckpt, step {evaluation.step}, {images}")
    for name, scores in (("average (EMA)", evaluation.average), ("weights", evaluation.scores)):
        if scores is not None:
            accuracies = f"top-1 {100 * scores.top1:.2f} %, top-5 {100 * scores.top5:.2f} %"
            print(f"  {name:15}{accuracies}, loss {scores.loss:.4f}")
    return 0
