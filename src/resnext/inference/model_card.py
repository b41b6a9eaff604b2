"""The model card of an exported folder: README.md with the front matter of the Hugging Face Hub."""

import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

import timm
from huggingface_hub import EvalResult, ModelCardData

from resnext.config.data import DataConfig
from resnext.config.redaction import redact_urls
from resnext.config.schema import Config
from resnext.data.images import load_images
from resnext.data.index import identify_data
from resnext.errors import UserError
from resnext.inference.card_accuracy import CardAccuracy, Interval, find_accuracy
from resnext.inference.markdown import code_block, escape, plain
from resnext.inference.network import TrainedNetwork
from resnext.models.complexity import describe_network
from resnext.run.directory import Run
from resnext.terminal import pluralize

TASK = "image-classification"
HUB_DATASETS = {"imagenet": "imagenet-1k", "cifar10": "cifar10", "cifar100": "cifar100"}  # by data.name
SHOWN_CLASSES = 100
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")

USAGE = """
import timm
import torch
from PIL import Image

model = timm.create_model(MODEL, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
image = Image.open("photo.jpg").convert("RGB")
with torch.inference_mode():
    probabilities = model(transform(image)[None]).softmax(dim=1)[0]
for probability, label in zip(*probabilities.topk(TOPK)):
    print(f"{probability:.4f}", model.pretrained_cfg["label_names"][label])
"""


class Card(NamedTuple):
    """`text` is the content of README.md; `accuracy` is None if it is not known."""

    text: str
    accuracy: CardAccuracy | None
    license: str | None


def check_license(name: str) -> str:
    """The hub's name of a licence. Raises UserError if it cannot be one."""
    if not LICENSE.fullmatch(name.lower()):
        raise UserError(
            f"--license={name} is not an identifier: give one of the hub's, such as apache-2.0 or cc-by-4.0"
        )
    return name.lower()


def build_card(
    trained: TrainedNetwork, run: Run | None, name: str, *, license: str | None = None, repo: str | None = None
) -> Card:
    """The card of `trained`, which is in the folder `name`, or in `repo` on the hub.

    Without a `run`, it has only what the metadata of the network has.

    Raises:
        UserError: if a file of the run is damaged.
    """
    accuracy = find_accuracy(run, trained) if run is not None else None
    config = run.config if run is not None else None
    title = repo.rpartition("/")[2] if repo else name
    parts = [
        f"---\n{_front_matter(trained, config, accuracy, title, license)}---",
        f"# {escape(title)}",
        "\n".join(_summary(trained, config, license)),
        "## Accuracy",
        "\n".join(_describe_accuracy(accuracy, len(trained.metadata.classes))),
        "## Use",
        _describe_usage(trained, name, repo),
        "## Training",
        "\n".join(_describe_training(trained, run, config)),
        "## Data",
        "\n".join(_describe_data(trained, run, config)),
    ]
    return Card("\n\n".join(parts) + "\n", accuracy, license)


def describe_card(card: Card) -> str:
    """The source of its accuracy, and its licence."""
    accuracy = "of `resnext evaluate`" if card.accuracy and card.accuracy.is_evaluation else "of the training"
    known = f"with the accuracy {accuracy}" if card.accuracy else "without an accuracy"
    return f"{known}, {f'licence {card.license}' if card.license else 'no licence was given (--license ID)'}"


def describe_start(config: Config) -> str | None:
    """The weights that the training started from, and their licence; None for random weights."""
    if (weights := config.model.weights) is None:
        return None
    known = timm.get_pretrained_cfg(name) if timm.is_model(name := weights.removeprefix("timm:")) else None
    if weights.startswith("timm:") and known is not None and known.license:
        return f"{weights}, whose licence is {known.license} according to timm"
    return f"{weights}, whose licence is not known here"


def _front_matter(
    trained: TrainedNetwork, config: Config | None, accuracy: CardAccuracy | None, title: str, license: str | None
) -> str:
    dataset = HUB_DATASETS.get(config.data.name) if config is not None else None
    given: dict[str, Any] = {"license": license, "datasets": [dataset] if dataset else None}
    if accuracy is not None and accuracy.is_evaluation and config is not None:
        given |= {
            "model_name": plain(title),
            "eval_results": _results(accuracy, config.data, len(trained.metadata.classes)),
        }
    data = ModelCardData(library_name="timm", pipeline_tag=TASK, tags=[TASK, "timm", "resnext"], **given)
    return f"{data.to_yaml()}\n"


def _results(accuracy: CardAccuracy, data: DataConfig, classes: int) -> list[EvalResult]:
    return [
        EvalResult(
            task_type=TASK,
            task_name="Image Classification",
            dataset_name=plain(data.name),
            dataset_type=HUB_DATASETS.get(data.name, plain(data.name)),
            dataset_split="validation",
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(score.value, 6),
        )
        for name, score in _shown(accuracy, classes)
    ]


def _shown(accuracy: CardAccuracy, classes: int) -> Iterator[tuple[str, Interval]]:
    """With five classes or fewer, each image has its class among the first five."""
    yield "top-1 accuracy", accuracy.scores.top1
    if classes > 5:
        yield "top-5 accuracy", accuracy.scores.top5


def _summary(trained: TrainedNetwork, config: Config | None, license: str | None) -> Iterator[str]:
    metadata = trained.metadata
    evaluation, size = metadata.evaluation, metadata.image_size
    yield f"A classifier of images with {pluralize(len(metadata.classes), 'class', 'classes')}.\n"
    yield f"- Network: {escape(metadata.model.name)}, {escape(describe_network(trained.network, size))}"
    short_side = f"{size / evaluation.crop_pct:.0f} pixels ({evaluation.interpolation})"
    yield f"- Images: {size}×{size} pixels. The short side is resized to {short_side}, and the centre is cropped."
    if trained.step is None:  # an exported file does not say whether it has the EMA weights
        yield "- Weights: those of the exported file"
    else:
        kind = "EMA weights (exponential moving average)" if trained.is_ema else "trained weights"
        yield f"- Weights: {kind}, after {pluralize(trained.step, 'optimizer step')}"
    if config is not None and (start := describe_start(config)) is not None:
        yield f"- Started from: {escape(start)}"
    yield f"- Licence: {escape(license)}" if license else "- Licence: no licence was given"


def _describe_accuracy(accuracy: CardAccuracy | None, classes: int) -> Iterator[str]:
    if accuracy is None:
        yield "The accuracy of these weights is not known."
        return
    yield "| | value | 95 % interval |"
    yield "|---|---|---|"
    yield from (f"| {name} | {score} |" for name, score in _shown(accuracy, classes))
    if (error := accuracy.scores.calibration_error) is not None:
        yield f"| expected calibration error | {error:.4f} | |"
    yield f"\n{accuracy.source} The intervals are Wilson score intervals."


def _describe_usage(trained: TrainedNetwork, name: str, repo: str | None) -> str:
    model = f"hf-hub:{repo}" if repo else f"local-dir:{name}"
    other = "a copy of this folder opens with `local-dir:PATH`" if repo else "on the hub, use `hf-hub:OWNER/NAME`"
    code = USAGE.strip().replace("TOPK", str(min(5, len(trained.metadata.classes)))).replace("MODEL", ascii(model))
    return f"With [timm](https://github.com/huggingface/pytorch-image-models); {other}.\n\n{code_block(code, 'python')}"


def _describe_training(trained: TrainedNetwork, run: Run | None, config: Config | None) -> Iterator[str]:
    yield f"- Experiment: {escape(trained.metadata.experiment)}"
    if run is None or config is None:
        yield f"- Recipe: {escape(trained.metadata.recipe or 'without a name')}"
        yield "- The run is not known: this card has only what the file of the weights says."
        return
    recipe, info = config.recipe, run.info
    yield f"- Recipe: {escape(recipe.file or 'without a name')}"
    if recipe.source:
        yield f"- Source of the recipe: {escape(recipe.source)}"
    yield f"- Epochs: {recipe.epochs}, with batches of {pluralize(recipe.batch_size, 'image')}, seed {config.seed}"
    starts = info["starts"]
    dates = [date[:10] for date in [info.get("created"), *(start.get("time") for start in starts[-1:])] if date]
    yield f"- Date: {escape(' to '.join(dict.fromkeys(dates)) or 'not known')}"
    codes = dict.fromkeys(code for code in [info["code"], *(start["code"] for start in starts)] if code)
    yield f"- Code: {escape(', then '.join(codes) or 'not known')} (commit, and a digest of uncommitted changes)"
    if versions := starts[-1].get("versions") if starts else None:
        yield f"- Versions: {escape(', '.join(f'{package} {found}' for package, found in versions.items()))}"
    yield "\nThe command:\n"
    yield code_block(redact_urls(shlex.join(map(str, info.get("command") or []))))


def _describe_data(trained: TrainedNetwork, run: Run | None, config: Config | None) -> Iterator[str]:
    if run is not None and config is not None:
        yield f"- Name: {escape(config.data.name)}"
        yield f"- Images: {_count_images(run, config)}"
    classes = trained.metadata.classes
    more = f" and {len(classes) - SHOWN_CLASSES:,} more, in `config.json`" if len(classes) > SHOWN_CLASSES else ""
    yield f"- {pluralize(len(classes), 'class', 'classes')}: {', '.join(map(escape, classes[:SHOWN_CLASSES]))}{more}"


def _count_images(run: Run, config: Config) -> str:
    """The images themselves may be gone, or may have changed since the training."""
    try:
        train, val = load_images(config.data)
        if identify_data(train, val) == run.data_identity:
            return f"{len(train):,} for the training, {len(val):,} for the validation"
    except UserError:
        pass
    count = run.summary.get("val_images")
    return f"{count:,} for the validation" if count else "their number is not known"
