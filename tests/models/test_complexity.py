"""The line that describes a network, against the paper's table and torchvision's published counts."""

import timm
import torch

from resnext.config.schema import ModelConfig
from resnext.models.complexity import count_macs, describe_network
from resnext.models.factory import build_model


def test_resnext50_is_described_with_the_papers_numbers():
    """Table 1 of arXiv 1611.05431: 25.0 M parameters and 4.2 G FLOPs, which are multiply-adds there."""
    network = build_model(ModelConfig(name="resnext50_32x4d"), num_classes=1000)
    line = describe_network(network, 224)
    assert line == "blocks 3-4-6-3, 32×4d, 25.03 M parameters, 4.23 GMACs at 224 px"


def test_a_network_of_timm_is_described_by_its_class_and_attention_counts():
    """timm's own results table has 1.08 GMACs for vit_tiny without the attention's products, 1.26 with them."""
    network = timm.create_model("vit_tiny_patch16_224")
    assert describe_network(network, 224).startswith("VisionTransformer, 5.72 M parameters, 1.2")


def test_counting_changes_nothing():
    """Weights, statistics and random numbers stay the same, in training mode. A compiled network is not compiled."""
    network = build_model(ModelConfig(name="resnext29_8x64d"), num_classes=10, drop_path_rate=0.5).train()
    network.compile(backend=lambda *_: 1 / 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    assert count_macs(network, 8) is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training


def test_a_network_that_reads_values_is_described_without_macs():
    class Odd(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * images.sum().item()

    assert describe_network(Odd(), 8) == "Odd, 0 parameters"
