"""Loads weights as a flat dict of tensors: a file or folder, `torchvision:NAME` or `timm:NAME`. Runs no code."""

import hashlib
import logging
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlparse

import huggingface_hub
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor

from resnext.config.errors import nearest
from resnext.config.weights_file import find_weights_file, is_safetensors
from resnext.errors import UserError

log = logging.getLogger(__name__)

NETWORK_PREFIX = "network."  # where ClassificationTask holds the network in our checkpoints
EMA_KEY = "state_dict_ema"  # the average of the weights, in our checkpoints and timm's
HUGGINGFACE_FILES = ("model.safetensors", "pytorch_model.bin")  # the files that timm tries there, in this order
FORCE_TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"

T = TypeVar("T")


class _Asked(NamedTuple):
    """The configuration key that asks for weights, and its value."""

    key: str
    name: str

    def __str__(self) -> str:
        return f"{self.key}={self.name}"


def load_weights(name: str, section: str = "model") -> dict[str, Tensor]:
    """The weights that `name` names, on the CPU.

    `torchvision:resnext50_32x4d` means the network's default weights, and
    `torchvision:ResNeXt50_32X4D_Weights.IMAGENET1K_V1` one entry of its weights. `timm:resnext50_32x4d.a1_in1k` is a
    timm network with its tag. `section` is the section of the configuration that holds `name`.

    Raises:
        UserError: if they are unknown, cannot be downloaded or read, or a cached file does not match the hash in its
            name.
    """
    asked = _Asked(f"{section}.weights", name)
    hub, _, hub_name = name.partition(":")
    if hub == "torchvision":
        return _load_from_torchvision(asked, hub_name)
    if hub == "timm":
        return _load_from_timm(asked, hub_name)
    return _read_file(asked)


def _load_from_torchvision(asked: _Asked, hub_name: str) -> dict[str, Tensor]:
    """Does not use torchvision's own loader, which would unpickle any file in its cache."""
    url = _torchvision_entry(asked, hub_name).url
    path = _path_in_hub(url)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(asked, lambda: torch.hub.download_url_to_file(url, str(path), _hash_in_name(path)), what=url)
    _check_hash(path)
    return _read_file(asked._replace(name=str(path)))


def _load_from_timm(asked: _Asked, hub_name: str) -> dict[str, Tensor]:
    if not timm.is_model(hub_name):
        known = [f"timm:{each}" for each in timm.list_pretrained()]
        raise UserError(f"{asked} is not a network of timm {timm.__version__}{nearest(asked.name, known)}")
    for path in _timms_cached_files(hub_name):
        _check_hash(path)
    with _tensors_only():
        return _fetch(asked, lambda: timm.create_model(hub_name, pretrained=True).state_dict())


def _torchvision_entry(asked: _Asked, hub_name: str) -> Any:
    try:
        if "." in hub_name:
            return torchvision.models.get_weight(hub_name)
        return torchvision.models.get_model_weights(hub_name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    except (ValueError, KeyError):
        known = [f"torchvision:{each}" for each in torchvision.models.list_models(module=torchvision.models)]
        raise UserError(f"{asked} is unknown to torchvision{nearest(asked.name, known)}") from None


def _timms_cached_files(hub_name: str) -> Iterator[Path]:
    """Every file in the caches of torch and huggingface_hub that timm may read."""
    config = timm.get_pretrained_cfg(hub_name)
    if config is not None and config.url:
        url = config.url if isinstance(config.url, str) else config.url[1]  # else the URL and a file name
        yield from filter(Path.exists, [_path_in_hub(url)])
    if config is not None and config.hf_hub_id:
        for file_name in filter(None, (config.hf_hub_filename, *HUGGINGFACE_FILES)):
            found = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, file_name)
            if isinstance(found, str):
                yield Path(found).resolve()  # the blob, which is named by its SHA-256


def _path_in_hub(url: str) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)


def _hash_in_name(path: Path) -> str | None:
    """The SHA-256 in a file's name, or its first digits; None if the name has none."""
    if re.fullmatch(r"[0-9a-f]{64}", path.name):
        return path.name
    found = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    return found[1] if found else None


def _check_hash(path: Path) -> None:
    """Raises UserError if a cached file does not match the hash in its name."""
    if not path.is_file():
        raise UserError(f"{path} is not a regular file: remove it, and it is downloaded again")
    expected = _hash_in_name(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is not None and not found.startswith(expected):
        raise UserError(
            f"{path} has the SHA-256 {found[:8]}…, not {expected[:8]}…: remove it, and it is downloaded again"
        )


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Makes every torch.load refuse code: after a TypeError, timm reads the file again without weights_only."""
    before = os.environ.get(FORCE_TENSORS_ONLY)
    os.environ[FORCE_TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        del os.environ[FORCE_TENSORS_ONLY]
        if before is not None:
            os.environ[FORCE_TENSORS_ONLY] = before


def _fetch(asked: _Asked, get: Callable[[], T], what: str = "them") -> T:
    """Calls `get`, which reads the hub's cache or downloads `what`. A download may take a minute to fail."""
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it logs every retry
    log.info("weights   %s", asked.name)
    try:
        return get()
    except Exception as error:  # the clients of the hubs raise many types
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"{asked} cannot be loaded ({type(error).__name__}: {reason[0][:120]}); "
            f"check the network, or download {what} elsewhere and give the file as {asked.key}=PATH"
        ) from error


def _read_file(asked: _Asked) -> dict[str, Tensor]:
    path = find_weights_file(asked, Path(asked.name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on how to read a file that it refuses
            content = load_file(path) if is_safetensors(path) else _load_tensors(path)
    except pickle.UnpicklingError:
        raise UserError(f"{asked} holds more than tensors and is not read: it could run code") from None
    except Exception as error:  # truncated, empty, or not a checkpoint: torch raises many types
        raise UserError(f"{asked} cannot be read as weights ({type(error).__name__})") from error
    return _network_weights(asked, content)


def _load_tensors(path: Path) -> Any:
    """From an open file: by its path, torch would take a file for safetensors because of its name."""
    with path.open("rb") as file:
        return torch.load(file, "cpu", weights_only=True)


def network_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a task's state, with the network's own names."""
    own = {key: value for key, value in state.items() if str(key).startswith(NETWORK_PREFIX)}
    return {key.removeprefix(NETWORK_PREFIX): value for key, value in own.items()}


def _network_weights(asked: _Asked, content: Any) -> dict[str, Tensor]:
    """The network's tensors, from a checkpoint of ours, of timm or of torchvision, or from a plain dict of tensors.

    Returns the average of the weights if a checkpoint holds one, because the average's accuracy selects best.ckpt.
    """
    if isinstance(content, dict):
        if isinstance(content.get(EMA_KEY), dict):
            log.info("weights   EMA weights in %s", asked.name)
        for key in (EMA_KEY, "state_dict", "model"):
            content = content.get(key, content) if isinstance(content.get(key), dict) else content
        if any(str(key).startswith(NETWORK_PREFIX) for key in content):
            content = network_weights(content)
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
    raise UserError(f"{asked} holds no weights: expected a dict of tensors, or one under state_dict")
