"""Initial values that a recipe sets, compared with timm's and torchvision's own networks and with closed forms."""

import math

import pytest
import timm
import torch
import torchvision
from torch import nn

from resnext.config.recipe import InitConfig
from resnext.config.schema import ModelConfig
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.models.initialization import initialize
from resnext.models.resnext import ResNeXt

OURS = ModelConfig(name="resnext", layers=(1, 1), cardinality=4, base_width=16, width=32)
HAS_NO_BLOCKS = ["convnext_zepto_rms", "convnextv2_atto", "vit_tiny_patch16_224", "vgg11", "densenet121"]


def build(name: str | ModelConfig, seed: int = 0, classes: int = 10, **init: object) -> nn.Module:
    torch.manual_seed(seed)
    model = name if isinstance(name, ModelConfig) else ModelConfig(name=name)
    return build_model(model, classes, init=InitConfig(**init))  # pyright: ignore[reportArgumentType]


def norms(network: nn.Module) -> dict[str, list[float]]:
    """Name of each batch norm → the distinct values of its weight."""
    modules = network.named_modules()
    return {name: module.weight.unique().tolist() for name, module in modules if isinstance(module, nn.BatchNorm2d)}


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("name", ["resnext50_32x4d", "timm/resnet50"])
@pytest.mark.parametrize("zero", [True, False, None])
def test_zero_init_last_sets_only_the_last_norm_of_each_block(name: str, zero: bool | None):
    """The norm has the same name in our network and timm's. null keeps the default: ones in ours, zeros in timm's."""
    last = [0.0] if zero or (zero is None and name == "timm/resnet50") else [1.0]
    found = norms(build(name, zero_init_last=zero))
    assert len(found) == 53
    assert found == {norm: last if norm.endswith(".bn3") else [1.0] for norm in found}


@pytest.mark.parametrize("zero", [True, False])
def test_our_norms_start_like_torchvisions(zero: bool):
    torch.manual_seed(0)
    theirs = torchvision.models.resnext50_32x4d(zero_init_residual=zero)
    assert norms(build("resnext50_32x4d", zero_init_last=zero)) == norms(theirs)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet50", "seresnext50_32x4d", "resnetv2_50", "regnety_002", "res2net50_26w_4s", "resnest14d"),
        *("cspresnet50", "gcresnext26ts"),
    ],
)
@pytest.mark.parametrize("zero", [True, False])
def test_timms_networks_start_as_with_timms_own_argument(name: str, zero: bool):
    """Compares every tensor. The blocks of resnetv2 end with a convolution, which is zero.

    The attention of gcresnext26ts has convolutions that start at zero; they do not change.
    """
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=10, zero_init_last=zero)
    assert_equal(build(f"timm/{name}", zero_init_last=zero), theirs)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("skresnet18", 8),  # timm fixes its argument at false
        ("regnetz_005", 21),  # the same
        ("hrnet_w18_small", 23),  # has no such argument
        ("levit_128s", 20),  # zero without such an argument, like the next networks
        ("repvit_m0_9", 26),
        ("swinv2_tiny_window8_256", 24),  # two layer norms in each of 12
    ],
)
def test_timms_networks_without_the_argument_start_at_zero(name: str, blocks: int):
    assert len(weights_at_zero(build(f"timm/{name}", zero_init_last=True))) == blocks
    assert weights_at_zero(build(f"timm/{name}", zero_init_last=False)) == []


@pytest.mark.parametrize("name", [*HAS_NO_BLOCKS, "efficientnet_b0", "mobileone_s1", "repvgg_a0", "regnetv_040"])
def test_a_network_that_cannot_start_at_zero_is_refused(name: str):
    """This includes networks that take timm's argument but ignore it: mobileone, repvgg, regnetv."""
    with pytest.raises(UserError, match=rf"^recipe.init.zero_init_last=true: model.name=timm/{name} .*=null.*$"):
        build(f"timm/{name}", zero_init_last=True)


@pytest.mark.parametrize("name", HAS_NO_BLOCKS)
def test_zero_init_last_false_changes_no_network_without_zero_blocks(name: str):
    """In particular, ConvNeXt-V2's response norms (convnextv2_atto), which are zero by design, do not change."""
    assert_equal(build(f"timm/{name}", zero_init_last=False), build(f"timm/{name}"))


class Odd(nn.Conv2d):
    """A block whose method `zero_init_last` does nothing."""

    def zero_init_last(self) -> None:
        pass


def test_a_network_with_one_block_that_cannot_start_at_zero_is_refused():
    for network in (nn.Sequential(build(OURS), Odd(3, 3, 1)), nn.Sequential(nn.Conv2d(3, 3, 1), zero_convolution())):
        with pytest.raises(UserError, match=r"^recipe.init.zero_init_last=true: model.name=odd has no residual blocks"):
            initialize(network, ("fc",), InitConfig(zero_init_last=True), "odd")


def zero_convolution() -> nn.Module:
    """A convolution at zero that is not the last layer of a block, as in some attention layers."""
    convolution = nn.Conv2d(3, 3, 1)
    nn.init.zeros_(convolution.weight)
    return convolution


def test_a_pre_activation_block_starts_as_its_shortcut_with_any_conv_init():
    network = build("timm/resnetv2_50", zero_init_last=True, conv="fan_in")
    weights = [module.conv3.weight for module in network.modules() if hasattr(module, "conv3")]
    assert len(weights) == 16
    assert not any(weight.any() for weight in weights)


def test_zero_init_last_starts_every_block_as_its_shortcut():
    network = build(OURS, zero_init_last=True)
    assert isinstance(network, ResNeXt)
    images = torch.randn(2, 32, 8, 8)
    block = network.layer1[0].eval()
    assert block.downsample is not None
    torch.testing.assert_close(block(images), block.downsample(images).relu())


@pytest.mark.parametrize("fan", ["fan_in", "fan_out"])
@pytest.mark.parametrize("name", ["resnext50_32x4d", "timm/resnet50", "timm/convnext_atto"])
def test_every_convolution_has_the_deviation_of_its_fan(name: str, fan: str):
    """torch's fans: for a weight [out, in / groups, h, w], the first or second dimension times h · w."""
    network = build(name, conv=fan)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert any(module.groups > 1 for module in convolutions) == (name != "timm/resnet50")
    for weight in (module.weight.detach() for module in convolutions):
        first, second, height, width = weight.shape
        expected = math.sqrt(2 / ((second if fan == "fan_in" else first) * height * width))
        error = 5 / math.sqrt(2 * weight.numel())  # five sigma of an empirical standard deviation
        assert weight.std().item() == pytest.approx(expected, rel=error)
        assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel())


@pytest.mark.parametrize("name", [OURS, "timm/resnet18"])
def test_convolutions_equal_torchs_kaiming_normal(name: str | ModelConfig):
    """They are drawn in the network's order, after the network's own draws; nothing else changes."""
    ours, theirs = build(name, conv="fan_in", zero_init_last=None), build(name)
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    assert_equal(ours, theirs)


def test_fan_out_is_the_default_of_our_networks():
    """Equal in distribution only: by default our network draws once, so that a seed gives torchvision's weights."""
    torch.manual_seed(0)
    theirs = torchvision.models.resnext50_32x4d(num_classes=10)
    stds = zip(build("resnext50_32x4d", conv="fan_out").parameters(), theirs.parameters(), strict=True)
    for ours, weight in (pair for pair in stds if pair[0].ndim == 4):
        assert ours.std().item() == pytest.approx(weight.std().item(), rel=10 / math.sqrt(2 * weight.numel()))


def test_a_network_without_convolutions_is_refused():
    """The only such network in timm: it embeds patches with a linear layer."""
    name = "timm/naflexvit_base_patch16_parfac_gap"
    with torch.device("meta"), pytest.raises(UserError, match=rf"^recipe.init.conv=fan_in: model.name={name} has no"):
        build(name, conv="fan_in")


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("resnext50_32x4d", ["fc"]),
        ("timm/resnet50", ["fc"]),
        ("timm/convnext_atto", ["head.fc"]),
        ("timm/deit_tiny_distilled_patch16_224", ["head", "head_dist"]),
    ],
)
def test_the_bias_of_every_classifier_is_zero(name: str, heads: list[str]):
    """Nothing else changes. Without the option, our network starts with torch's default bias, which is not zero."""
    plain, zeroed = build(name), build(name, zero_classifier_bias=True)
    for head in heads:
        bias = zeroed.get_parameter(f"{head}.bias")
        assert bias.shape == (10,)
        assert not bias.any()
        nn.init.zeros_(plain.get_parameter(f"{head}.bias"))
    assert_equal(zeroed, plain)


def test_the_biases_of_both_classifiers_are_set():
    """In timm's distilled networks both biases are zero by default, so the test above would not detect a mistake."""
    network = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=10)
    for head in ("head", "head_dist"):
        nn.init.ones_(network.get_parameter(f"{head}.bias"))
    initialize(network, ("head", "head_dist"), InitConfig(zero_classifier_bias=True), "deit")
    assert not any(network.get_parameter(f"{head}.bias").any() for head in ("head", "head_dist"))


def test_our_default_bias_is_not_zero():
    assert build(OURS).get_parameter("fc.bias").any()


def test_a_classifier_without_a_bias_is_refused(monkeypatch: pytest.MonkeyPatch):
    """No network of timm that we tried has such a classifier, so the test makes one."""
    create = timm.create_model

    def create_without_bias(*arguments: object, **options: object) -> nn.Module:
        network = create(*arguments, **options)  # pyright: ignore[reportArgumentType]
        network.fc = nn.Linear(512, 10, bias=False)
        return network

    monkeypatch.setattr(timm, "create_model", create_without_bias)
    with pytest.raises(UserError, match=r"^recipe.init.zero_classifier_bias=true: model.name=timm/resnet18 has no"):
        build("timm/resnet18", zero_classifier_bias=True)


def test_given_weights_replace_initial_values_except_in_a_new_head(tmp_path):
    saved = build(OURS, seed=1, classes=5)
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    start = {"conv": "fan_in", "zero_init_last": True, "zero_classifier_bias": True}
    given = ModelConfig(**{**vars(OURS), "weights": str(tmp_path / "w.pth")})
    assert_equal(build(given, classes=5, **start), saved)
    other = build(given, classes=3, **start)
    assert not other.get_parameter("fc.bias").any()
    assert torch.equal(other.get_parameter("fc.weight"), build(OURS, classes=3).get_parameter("fc.weight"))
    assert torch.equal(other.get_parameter("layer1.0.bn3.weight"), torch.ones(128))


def weights_at_zero(network: nn.Module) -> list[str]:
    """Names of the norms whose weights are all zero."""
    norm = (nn.BatchNorm2d, nn.BatchNorm1d, nn.LayerNorm)
    return [name for name, each in network.named_modules() if isinstance(each, norm) and not each.weight.any()]
