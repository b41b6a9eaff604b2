"""Our networks, compared with torchvision's, timm's, and the paper's tables."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from resnext.config.model import VARIANTS
from resnext.config.schema import ModelConfig
from resnext.models.factory import build_model
from resnext.models.resnext import ResNeXt

# Parameters in the paper's order of rows; 1×64d is ResNet. 101_1x100d and 101_2x64d have no published count: it comes
# from the formula of the paper's blocks, in `count_by_hand`. The CIFAR counts are millions, for 10 classes.
PARAMETERS = {
    "resnext50_1x64d": 25_557_032,
    "resnext50_2x40d": 25_425_000,
    "resnext50_4x24d": 25_292_968,
    "resnext50_8x14d": 25_603_016,
    "resnext50_32x4d": 25_028_904,
    "resnext101_1x64d": 44_549_160,
    "resnext101_2x40d": 44_456_296,
    "resnext101_4x24d": 44_363_432,
    "resnext101_8x14d": 45_104_328,
    "resnext101_32x4d": 44_177_704,
    "resnext101_64x4d": 83_455_272,
    "resnext101_32x8d": 88_791_336,
}
CIFAR_MILLIONS = {"resnext29_8x64d": 34.4, "resnext29_16x64d": 68.1}
GMACS = {
    "resnext50_1x64d": 4.089,
    "resnext50_2x40d": 4.125,
    "resnext50_4x24d": 4.160,
    "resnext50_8x14d": 4.267,
    "resnext50_32x4d": 4.230,
    "resnext101_1x64d": 7.801,
    "resnext101_2x40d": 7.844,
    "resnext101_4x24d": 7.886,
    "resnext101_8x14d": 8.077,
    "resnext101_32x4d": 7.970,
    "resnext101_64x4d": 15.46,
}
TWINS = [
    ("resnext50_1x64d", torchvision.models.resnet50),
    ("resnext50_32x4d", torchvision.models.resnext50_32x4d),
    ("resnext101_1x64d", torchvision.models.resnet101),
    ("resnext101_64x4d", torchvision.models.resnext101_64x4d),
    ("resnext101_32x8d", torchvision.models.resnext101_32x8d),
    ("resnext50_1x64d", lambda: timm.create_model("resnet50")),
    ("resnext50_32x4d", lambda: timm.create_model("resnext50_32x4d")),
    ("resnext101_1x64d", lambda: timm.create_model("resnet101")),
    ("resnext101_32x4d", lambda: timm.create_model("resnext101_32x4d")),
    ("resnext101_64x4d", lambda: timm.create_model("resnext101_64x4d")),
    ("resnext101_32x8d", lambda: timm.create_model("resnext101_32x8d")),
]


def test_every_network_of_the_tables_exists():
    assert set(VARIANTS) == {*PARAMETERS, *CIFAR_MILLIONS, "resnext101_1x100d", "resnext101_2x64d"}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_number_of_parameters_equals_the_papers(name: str):
    with torch.device("meta"):
        network = build_model(ModelConfig(name=name), 10 if "29" in name else 1000)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if name in CIFAR_MILLIONS:
        assert abs(parameters / 1e6 - CIFAR_MILLIONS[name]) < 0.06
    else:
        assert parameters == (PARAMETERS[name] if name in PARAMETERS else count_by_hand(name))


@pytest.mark.parametrize(("name", "gmacs"), GMACS.items())
def test_the_number_of_multiply_accumulates_equals_the_papers(name: str, gmacs: float):
    with torch.device("meta"):
        network = build_model(ModelConfig(name=name), 1000).eval()
        assert abs(count_macs(network, torch.empty(1, 3, 224, 224)) / 1e9 - gmacs) < 0.006


@pytest.mark.parametrize(("name", "build_twin"), TWINS)
def test_logits_equal_the_reference_with_weights_copied_in_both_directions(name: str, build_twin):
    torch.manual_seed(0)
    ours, twin = build_model(ModelConfig(name=name), 1000).eval(), build_twin().eval()
    unsettle_batch_norm(twin)
    images = torch.randn(2, 3, 64, 64)
    ours.load_state_dict(twin.state_dict())
    with torch.no_grad():
        assert_close_logits(ours(images), twin(images))
        unsettle_batch_norm(ours)
        twin.load_state_dict(ours.state_dict())
        assert_close_logits(twin(images), ours(images))


def test_a_training_step_equals_torchvisions():
    """Compares batch statistics, gradients and running statistics."""
    torch.manual_seed(0)
    ours, twin = (
        build_model(ModelConfig(name="resnext50_32x4d"), 10),
        torchvision.models.resnext50_32x4d(num_classes=10),
    )
    twin.load_state_dict(ours.state_dict())
    images, targets = torch.randn(4, 3, 64, 64), torch.randint(10, (4,))
    for network in (ours, twin):
        nn.functional.cross_entropy(network(images), targets).backward()
    for (name, ours_parameter), twin_parameter in zip(ours.named_parameters(), twin.parameters(), strict=True):
        assert ours_parameter.grad is not None
        assert twin_parameter.grad is not None
        torch.testing.assert_close(ours_parameter.grad, twin_parameter.grad, msg=name)
    torch.testing.assert_close(ours.bn1.running_var, twin.bn1.running_var)


def test_initialisation_is_he_normal_with_fan_out():
    torch.manual_seed(0)
    network = ResNeXt([1], 4, 64, num_classes=10)
    weight = network.layer1[0].conv2.weight  # 256 channels in 4 groups, 3×3: torch counts fan-out over all groups
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_drop_path_rises_linearly_and_keeps_the_expected_value():
    network = ResNeXt([2, 2], 2, 64, num_classes=10, drop_path_rate=0.3)
    rates = [getattr(block.drop_path, "p", 0.0) for stage in (network.layer1, network.layer2) for block in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])
    torch.manual_seed(0)
    kept = network.layer2[1].drop_path(torch.ones(20_000, 1, 1, 1))
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert kept.mean().item() == pytest.approx(1, abs=0.02)


def test_stems_divide_the_resolution_as_documented():
    for stem, size in (("imagenet", 2), ("cifar", 8)):
        network = ResNeXt([1, 1, 1], 2, 64, num_classes=10, stem=stem)
        seen: list[torch.Size] = []
        network.avgpool.register_forward_hook(lambda _module, inputs, _output, seen=seen: seen.append(inputs[0].shape))
        network.eval()(torch.zeros(1, 3, 32, 32))
        assert seen[0][2:] == (size, size)


def count_by_hand(name: str) -> int:
    """The number of parameters from the paper's table 1: stem, blocks with their norms, shortcuts, classifier."""
    cardinality, base_width = {"resnext101_1x100d": (1, 100), "resnext101_2x64d": (2, 64)}[name]
    total, channels = 3 * 64 * 49 + 2 * 64, 64
    for stage, depth in enumerate((3, 4, 23, 3)):
        width, out = cardinality * base_width * 2**stage, 256 * 2**stage
        for block in range(depth):
            total += channels * width + width * width * 9 // cardinality + width * out + 2 * (2 * width + out)
            total += channels * out + 2 * out if block == 0 else 0
            channels = out
    return total + channels * 1000 + 1000


def count_macs(network: nn.Module, images: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions and the classifier for one image."""
    total = 0

    def count(module: nn.Module, _inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += output[0].numel() * weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(images)
    return total


def unsettle_batch_norm(network: nn.Module) -> None:
    """Sets running statistics and affine weights to values that differ from the initial ones."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)


def assert_close_logits(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ((ours - theirs).norm() / theirs.norm()).item() <= 1e-5
