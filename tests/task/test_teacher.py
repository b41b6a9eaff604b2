"""The normalisation of the teacher's images."""

from pathlib import Path

import pytest
import timm
import torch

from resnext.config.recipe import TeacherConfig
from resnext.task.loss import distillation_loss
from resnext.task.teacher import build_teacher
from support.small_run import small_config


@pytest.mark.parametrize(
    ("name", "file", "is_known"),
    [
        ("test_vit.r160_in1k", "weights.pt", True),
        ("test_vit", "weights.pt", False),
        ("test_vit.r160_in1k", "best.ckpt", False),
    ],
)
def test_the_tag_selects_the_normalisation_for_a_weights_file(tmp_path: Path, name: str, file: str, is_known: bool):
    """For weights downloaded on another machine. Without a tag, only the origin of our own checkpoints is known."""
    network = timm.create_model("test_vit").eval()
    torch.save(network.state_dict(), tmp_path / file)
    entry = timm.get_pretrained_cfg("test_vit.r160_in1k")
    assert entry is not None
    data = small_config(tmp_path, data__mean=[0.1, 0.2, 0.3], data__std=[0.4, 0.5, 0.6]).data
    config = TeacherConfig(name=f"timm/{name}", weights=str(tmp_path / file), weight=1.0)
    teacher = build_teacher(config, 1000, data)
    assert teacher is not None
    torch.manual_seed(0)
    pixels, logits = torch.rand(2, 3, 160, 160), torch.randn(2, 1000)
    ours = _normalized(pixels, data.mean, data.std)
    theirs = _normalized(pixels, entry.mean, entry.std) if is_known else ours
    with torch.no_grad():
        expected = distillation_loss(logits, network(theirs), 1.0)
    torch.testing.assert_close(teacher.blend(torch.tensor(5.0), ours, logits), expected)


def _normalized(pixels: torch.Tensor, mean, std) -> torch.Tensor:
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
