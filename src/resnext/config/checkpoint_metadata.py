"""The metadata in a checkpoint: all that is needed to use its network without the run directory. Imports no torch."""

import dataclasses
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, Self, get_type_hints

from pydantic import TypeAdapter

from resnext.config.augmentation import EvaluationConfig
from resnext.config.model import STRUCTURE, TIMM_PREFIX, VARIANTS
from resnext.config.schema import Config, ModelConfig, to_dict
from resnext.config.weights_file import TIMM_CONFIG, is_safetensors, read_safetensors_header
from resnext.errors import UserError
from resnext.files import check_regular, read_text

METADATA = "metadata"  # its key in a checkpoint
SET_ELSEWHERE = ("num_classes", "in_chans")  # of timm's model_args; the metadata has them elsewhere


class CheckpointMetadata(NamedTuple):
    """The network, its classes and its preprocessing, as the run had them when it wrote the checkpoint.

    `experiment` and `recipe` are names of configuration files. `model` is the network alone. `evaluation` always has an
    image size. A class's position in `classes` is its label; `mean` and `std` are of RGB in [0, 1].
    """

    experiment: str
    recipe: str | None
    model: ModelConfig
    classes: tuple[str, ...]
    evaluation: EvaluationConfig
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, config: Config, classes: tuple[str, ...]) -> Self:
        return cls(
            experiment=config.experiment,
            recipe=config.recipe.file,
            model=config.model.network,
            classes=classes,
            evaluation=dataclasses.replace(
                config.recipe.evaluation, image_size=config.recipe.eval_image_size, metrics=()
            ),
            mean=config.data.mean,
            std=config.data.std,
        )

    @property
    def image_size(self) -> int:
        """Pixels of each side of an input image."""
        assert self.evaluation.image_size is not None, "see `of`"
        return self.evaluation.image_size

    def to_plain(self) -> dict[str, Any]:
        """Dicts, lists and scalars, which torch loads with weights_only=True."""
        model = {key: value for key, value in to_dict(self.model).items() if key != "freeze"}  # earlier releases' keys
        plain = {"model": model, "evaluation": to_dict(self.evaluation)}
        del plain["evaluation"]["metrics"]  # not part of the preprocessing, and earlier releases refuse it
        lists = {name: list(getattr(self, name)) for name in ("classes", "mean", "std")}
        return {**self._asdict(), **plain, **lists}


def parse_metadata(path: Path, content: dict[str, Any]) -> CheckpointMetadata:
    """The metadata in `content`, which was read from `path`.

    Raises:
        UserError: if an earlier release wrote the file without metadata, or the metadata cannot be read.
    """
    if METADATA not in content:
        raise UserError(
            f"{path} does not hold its network, class names and preprocessing (checkpoints of earlier releases do "
            "not): use the run directory that it is from"
        )
    try:
        return _parse(content[METADATA])
    except (LookupError, TypeError, ValueError) as error:  # ValueError: pydantic's too
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} holds metadata that cannot be read ({reason}): use the release that wrote it"
        ) from error


def peek_metadata(path: Path) -> CheckpointMetadata | None:
    """The metadata of a checkpoint or an export, without reading its tensors or checking it; None if it has none.

    For `model.weights`, which may be any file: the code that loads the weights reports its errors.
    """
    try:
        if path.is_dir():
            return _parse(_of_timm(json.loads(read_text(path / TIMM_CONFIG))))
        check_regular(path)
        if is_safetensors(path):
            return _parse(json.loads(read_safetensors_header(path)[METADATA]))
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(pickled) as file:
                return _parse(_PlainUnpickler(file).load()[METADATA])
    except Exception:  # not a file, not a zip archive, not a checkpoint: zipfile and pickle raise many types
        return None


def _of_timm(config: dict[str, Any]) -> dict[str, Any]:
    """The metadata in the config.json of a network of timm: its variants of ResNeXt are ours too."""
    images, arguments, name = config["pretrained_cfg"], config.get("model_args", {}), config["architecture"]
    if "layers" in arguments:
        model = {"name": "resnext", "options": {key: arguments[key] for key in STRUCTURE if key in arguments}}
    elif name in VARIANTS:
        model = {"name": name}
    else:
        options = {key: value for key, value in arguments.items() if key not in SET_ELSEWHERE}
        if isinstance(size := options.get("img_size"), list) and len(set(size)) == 1:
            options["img_size"] = size[0]  # timm writes [height, width]; an option is a scalar
        model = {"name": TIMM_PREFIX + name, "options": options}
    numbered = [str(label) for label in range(config["num_classes"])]
    names = config.get("label_names", numbered)
    return {
        "experiment": name,
        "recipe": None,
        "model": model,
        "classes": names if isinstance(names, list) else numbered,
        "evaluation": {key: images[key] for key in ("crop_pct", "interpolation")}
        | {"image_size": images["input_size"][1]},
        **{key: images[key] for key in ("mean", "std")},
    }


def _parse(found: Any) -> CheckpointMetadata:
    """Raises LookupError, TypeError or ValueError. Ignores the keys of a later release."""
    classes = found["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise TypeError("classes is not a list of names")
    types = {name: kind for name, kind in get_type_hints(CheckpointMetadata).items() if name != "classes"}
    # as JSON, see parse_config; but not the class names: a folder's name may not be valid Unicode
    values = {name: TypeAdapter(kind).validate_json(json.dumps(found[name])) for name, kind in types.items()}
    return CheckpointMetadata(**values, classes=tuple(classes))


class _Skipped(dict[Any, Any]):
    """Replaces every object of a class, such as a tensor. Accepts everything that pickle does with an object."""

    def __init__(self, *_arguments: Any) -> None:
        super().__init__()

    def __setstate__(self, _state: Any) -> None:
        pass


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain values and runs no code: it does not look up the classes and functions that a file names."""

    def find_class(self, _module: str, _name: str) -> type[_Skipped]:
        return _Skipped

    def persistent_load(self, _pid: Any) -> None:
        """Returns None, because a tensor's bytes are in another record of the archive."""
