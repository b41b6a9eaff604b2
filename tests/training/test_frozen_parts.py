"""A training with frozen parts: they do not change, the others do, and a resume is exact."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from resnext.data.images import load_images
from resnext.errors import Interrupted, UserError
from resnext.report.comparison import compare
from resnext.run.directory import Run
from resnext.training.fit import fit
from resnext.training.parts import build_parts
from support.small_run import make_run, small_config
from support.stopping import Stopper, with_callbacks

FROZEN = ("conv1", "bn1", "layer1")
MODEL = {"name": "resnext", "layers": [1, 1], "cardinality": 2, "base_width": 16, "width": 8, "stem": "cifar"}
OPTIONS: dict[str, Any] = {
    "model": MODEL | {"freeze": list(FROZEN)},
    "recipe__batch_size": 4,
    "recipe__drop_path_rate": 0.5,
    "recipe__ema": {"decay": 0.9},
    "recipe__optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.5, "layer_decay": 0.7, "clip_grad_norm": 1.0},
}


class Modes(Callback):
    """Collects the training modes of each part of the network at each step."""

    def __init__(self) -> None:
        self.found: dict[str, set[bool]] = {}

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        for name, module in pl_module.network.named_modules():
            self.found.setdefault(name.partition(".")[0], set()).add(module.training)


def test_frozen_parts_stay_and_a_resume_is_bit_identical(image_folder: Path, capsys: pytest.CaptureFixture[str]):
    config = small_config(image_folder, run="whole", **OPTIONS)
    start = build_parts(config, *load_images(config.data)).network.state_dict()
    whole, parts = (make_run(small_config(image_folder, run=name, **OPTIONS)) for name in ("whole", "parts"))
    modes = Modes()
    with with_callbacks(modes):
        fit(whole)  # two epochs, each with a validation
    assert modes.found == {
        name: {name not in FROZEN} for name in ("", *FROZEN, "relu", "maxpool", "avgpool", "layer2", "fc")
    }
    head = capsys.readouterr().out
    parameters = {name: value for name, value in start.items() if name.endswith(("weight", "bias"))}
    frozen = sum(value.numel() for name, value in parameters.items() if name.startswith(FROZEN))
    total = sum(value.numel() for value in parameters.values())
    assert f"frozen    {frozen:,} of {total:,} parameters: conv1, bn1, layer1\n" in head
    assert "model.freeze without model.weights: the frozen parts keep their initial values" in head

    content = torch.load(whole.checkpoints / "last.ckpt", weights_only=True)
    for state in (content["state_dict"], content["state_dict_ema"]):
        for name, value in start.items():
            same = torch.equal(state[f"network.{name}"], value)
            assert same == name.startswith(FROZEN), name
    trained = [name for name in parameters if not name.startswith(FROZEN)]
    assert len(content["optimizer_states"][0]["state"]) == len(trained)

    with with_callbacks(Stopper("on_train_batch_start", 4)), pytest.raises(Interrupted):
        fit(parts)
    fit(parts)
    assert [part for part in compare(whole, parts) if not part.same] == []
    assert (whole.path / "metrics.csv").read_bytes() == (parts.path / "metrics.csv").read_bytes()


def test_what_is_frozen_is_part_of_a_runs_identity(image_folder: Path):
    changes = {key: value for key, value in OPTIONS.items() if key != "model"}
    made = make_run(small_config(image_folder, model=MODEL, **changes))
    assert made.config.model.freeze == ()
    text = (made.path / "config.yaml").read_text()
    for path in (made.path / "config.yaml", made.path / "starts/1.yaml"):  # as an earlier release wrote them
        path.write_text(re.sub(r"^ +(freeze|gamma|class_weights):.*\n", "", text, flags=re.MULTILINE))
    assert "freeze" not in (made.path / "config.yaml").read_text()
    assert Run.open(made.path).config == made.config
    assert make_run(small_config(image_folder, model=MODEL, **changes)).path == made.path
    with pytest.raises(UserError, match=r"model.freeze was \[\] and is now \[\"conv1\",\"bn1\",\"layer1\"\]"):
        make_run(small_config(image_folder, **OPTIONS))
