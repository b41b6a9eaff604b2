"""The formats of an export: each writes a file or folder, and reads it back by the library that the format is for."""

import importlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from resnext.config.checkpoint_metadata import METADATA, CheckpointMetadata
from resnext.config.model import TIMM_PREFIX, VARIANTS, ModelConfig, ResNeXtOptions
from resnext.errors import UserError
from resnext.inference.network import TrainedNetwork
from resnext.models.factory import build_model

Logits = Callable[[Tensor], Tensor]  # normalised images float32 [N, 3, size, size] → float32 [N, classes]

ORIGIN = ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes", "url", "hf_hub_id")
METADATA_FILE = "metadata.json"  # in the archive of torch.export


class Format(NamedTuple):
    """`suffix` of the file; empty for a folder. `opens` says how to open it, with PATH in place of the path.

    `holds` returns why the format cannot hold a network; None if it can.
    """

    suffix: str
    library: str
    opens: str
    holds: Callable[[ModelConfig], str | None]
    write: Callable[[TrainedNetwork, Path, int | None], None]
    read: Callable[[Path, CheckpointMetadata], Logits]


def check_packages(format: str) -> None:
    """Raises UserError if a package that `format` needs is not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ():
        try:
            importlib.import_module(package)
        except ImportError:
            raise UserError(
                f"--format onnx needs {package}, which is not installed: pip install -e '.[export]' installs it"
            ) from None


def find_refusal(format: str, model: ModelConfig) -> str | None:
    """One line if `format` cannot hold the network, with the formats that can."""
    if (reason := FORMATS[format].holds(model)) is None:
        return None
    able = [name for name, each in FORMATS.items() if each.holds(model) is None]
    return f"--format {format} cannot hold model.name={model.name}: {reason}; choose {', '.join(able)}"


def _anything(_model: ModelConfig) -> None:
    return None


def _plain_resnet(model: ModelConfig) -> str | None:
    """torchvision's and timm's ResNet have four stages after ImageNet's stem of 64 channels."""
    structure = find_structure(model)
    if structure is None:
        return "it is not a ResNeXt"
    if structure.stem != "imagenet":
        return f"it has a {structure.stem} stem"
    if len(structure.layers) != 4:
        return f"it has {len(structure.layers)} stages instead of 4"
    return None if structure.width == 64 else f"its stem has {structure.width} channels instead of 64"


def _timms(model: ModelConfig) -> str | None:
    return None if model.name.startswith(TIMM_PREFIX) else _plain_resnet(model)


def find_structure(model: ModelConfig) -> ResNeXtOptions | None:
    """The structure of a ResNeXt of ours; None for another network."""
    return VARIANTS.get(model.name) or (model.options if isinstance(model.options, ResNeXtOptions) else None)


def _write_safetensors(trained: TrainedNetwork, path: Path, _opset: int | None) -> None:
    state = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    safetensors.torch.save_file(state, path, {"format": "pt", METADATA: _to_json(trained.metadata)})


def _write_torch(trained: TrainedNetwork, path: Path, _opset: int | None) -> None:
    torch.save({"state_dict": trained.network.state_dict(), METADATA: trained.metadata.to_plain()}, path)


def _write_torchvision(trained: TrainedNetwork, path: Path, _opset: int | None) -> None:
    torch.save(trained.network.state_dict(), path)


def _write_timm(trained: TrainedNetwork, path: Path, _opset: int | None) -> None:
    model, metadata = trained.metadata.model, trained.metadata
    structure, arguments = find_structure(model), {}
    if structure is None:
        name, arguments = model.name.removeprefix(TIMM_PREFIX), dict(model.options or {})
    else:
        sizes = {"layers": structure.layers, "cardinality": structure.cardinality, "base_width": structure.base_width}
        name, arguments = ("resnext50_32x4d", sizes) if not timm.is_model(model.name) else (model.name, {})
    twin = timm.create_model(name, num_classes=len(metadata.classes), **arguments)
    twin.load_state_dict(trained.network.state_dict())
    known: Any = twin.pretrained_cfg  # of timm's own weights
    twin.__dict__["pretrained_cfg"] = {key: value for key, value in known.items() if key not in ORIGIN}
    evaluation, size = metadata.evaluation, metadata.image_size
    config = {"label_names": list(metadata.classes), "num_classes": len(metadata.classes)}
    data = {
        "input_size": (3, size, size),
        "crop_pct": evaluation.crop_pct,
        "crop_mode": "center",
        "interpolation": evaluation.interpolation,
        "mean": metadata.mean,
        "std": metadata.std,
    }
    save_for_hf(twin, str(path), model_config=config, model_args=arguments, safe_serialization=True, data_config=data)


def _write_onnx(trained: TrainedNetwork, path: Path, opset: int | None) -> None:
    import onnx

    logging.disable(logging.CRITICAL)  # else a failed conversion of the opset logs its traceback, and goes on
    try:
        program = torch.onnx.export(
            trained.network,
            (_example(trained.metadata),),
            input_names=["images"],
            output_names=["logits"],
            opset_version=opset,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    finally:
        logging.disable(logging.NOTSET)
    assert program is not None
    model = program.model_proto
    written = next(each.version for each in model.opset_import if not each.domain)
    if opset not in (None, written):
        raise UserError(f"--opset {opset} is not possible for this network: leave it out for opset {written}")
    onnx.helper.set_model_props(model, {METADATA: _to_json(trained.metadata)})
    onnx.save(model, path)


def _write_program(trained: TrainedNetwork, path: Path, _opset: int | None) -> None:
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(trained.network, (_example(trained.metadata),), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={METADATA_FILE: _to_json(trained.metadata)})


def _read_safetensors(path: Path, metadata: CheckpointMetadata) -> Logits:
    return _rebuilt(safetensors.torch.load_file(path), metadata)


def _read_torch(path: Path, metadata: CheckpointMetadata) -> Logits:
    return _rebuilt(torch.load(path, weights_only=True)["state_dict"], metadata)


def _read_torchvision(path: Path, metadata: CheckpointMetadata) -> Logits:
    structure = find_structure(metadata.model)
    assert structure is not None
    groups, width = structure.cardinality, structure.base_width
    network = ResNet(Bottleneck, list(structure.layers), len(metadata.classes), groups=groups, width_per_group=width)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def _read_timm(path: Path, _metadata: CheckpointMetadata) -> Logits:
    return timm.create_model(f"local-dir:{path}", pretrained=True).eval()


def _read_onnx(path: Path, _metadata: CheckpointMetadata) -> Logits:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(np.asarray(session.run(["logits"], {"images": images.numpy()})[0]))


def _read_program(path: Path, _metadata: CheckpointMetadata) -> Logits:
    return torch.export.load(path).module()


def _rebuilt(state: dict[str, Tensor], metadata: CheckpointMetadata) -> nn.Module:
    network = build_model(metadata.model, len(metadata.classes))
    network.load_state_dict(state)
    return network.eval()


def _example(metadata: CheckpointMetadata) -> Tensor:
    size = metadata.image_size
    return torch.zeros(2, 3, size, size)  # a batch of one would become a constant of the program


def _to_json(metadata: CheckpointMetadata) -> str:
    plain: dict[str, Any] = metadata.to_plain()
    return json.dumps(plain)


FORMATS = {
    "safetensors": Format(
        ".safetensors",
        "safetensors",
        'safetensors.torch.load_file("PATH")',
        _anything,
        _write_safetensors,
        _read_safetensors,
    ),
    "torch": Format(
        ".pt", "torch", 'torch.load("PATH", weights_only=True)["state_dict"]', _anything, _write_torch, _read_torch
    ),
    "timm": Format(
        "", "timm", 'timm.create_model("local-dir:PATH", pretrained=True).eval()', _timms, _write_timm, _read_timm
    ),
    "torchvision": Format(
        ".pth",
        "torchvision",
        'torch.load("PATH", weights_only=True)',
        _plain_resnet,
        _write_torchvision,
        _read_torchvision,
    ),
    "onnx": Format(".onnx", "onnxruntime", 'onnxruntime.InferenceSession("PATH")', _anything, _write_onnx, _read_onnx),
    "torchexport": Format(
        ".pt2", "torch", 'torch.export.load("PATH").module()', _anything, _write_program, _read_program
    ),
}
