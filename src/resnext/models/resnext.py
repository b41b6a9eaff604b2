"""ResNeXt: residual networks of aggregated transformations (Xie et al. 2017, arXiv 1611.05431).

In a block, a 1×1 convolution reduces the channels, a 3×3 convolution transforms them in `cardinality` groups (with
the stride, as in torchvision), and a 1×1 convolution expands them. Batch norm follows each convolution. The shortcut
is the paper's type B: a 1×1 convolution if the shape changes, else the identity. State-dict keys are torchvision's,
so weights can be loaded both ways.
"""

import functools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from resnext.config.model import VARIANTS, ResNeXtOptions, register_resnext, register_variant
from resnext.registry import NoOptions

EXPANSION = 4  # output channels of a block / channels of its stage


class ResNeXt(nn.Module):
    """Maps images [N, 3, H, W] to logits [N, num_classes].

    The stem has `width` channels (64 in the paper). Stage i has `layers[i]` blocks with 4 · width · 2^i output
    channels. Its 3×3 convolutions have width · 2^i · base_width / 64 channels in each of `cardinality` groups.
    The imagenet stem (7×7, stride 2, max-pool) divides the resolution by 4; the cifar stem (3×3) keeps it. Every
    stage except the first halves the resolution. `drop_path_rate` is the rate of the last block; the rates rise
    linearly from 0 at the first block (Huang et al. 2016, arXiv 1603.09382).
    """

    def __init__(
        self,
        layers: Sequence[int],
        cardinality: int,
        base_width: int,
        *,
        num_classes: int,
        width: int = 64,
        stem: Literal["imagenet", "cifar"] = "imagenet",
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()

        self.stages = [f"layer{number}" for number in range(1, len(layers) + 1)]
        drop_path_rates = iter(_rising(drop_path_rate, sum(layers)))
        channels = width
        for index, (name, depth) in enumerate(zip(self.stages, layers, strict=True)):
            planes = width * 2**index
            blocks: list[nn.Module] = []
            for block in range(depth):
                stride = 2 if index > 0 and block == 0 else 1
                blocks.append(Bottleneck(channels, planes, cardinality, base_width, stride, next(drop_path_rates)))
                channels = planes * EXPANSION
            self.add_module(name, nn.Sequential(*blocks))

        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        self._init_weights()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(self.avgpool(x).flatten(1))

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """The parameters of each layer, for timm's layer-wise learning rates: the stem, then each block or stage."""
        return {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def _init_weights(self) -> None:
        """He initialisation by fan-out, as in torchvision."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Bottleneck(nn.Module):
    """[N, in_channels, H, W] → [N, 4 · planes, H / stride, W / stride]."""

    def __init__(
        self, in_channels: int, planes: int, cardinality: int, base_width: int, stride: int, drop_path_rate: float
    ) -> None:
        super().__init__()
        assert planes * base_width % 64 == 0, "checked when the structure is chosen"
        width = planes * base_width // 64 * cardinality
        out_channels = planes * EXPANSION
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=cardinality, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.drop_path = StochasticDepth(drop_path_rate, mode="row") if drop_path_rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(self.drop_path(x) + shortcut)

    def zero_init_last(self) -> None:
        """Makes the block initially equal to its shortcut (Goyal et al. 2017). timm's blocks have this method too."""
        nn.init.zeros_(self.bn3.weight)


def _rising(last: float, count: int) -> list[float]:
    return [last * index / max(count - 1, 1) for index in range(count)]


@register_resnext
def build_resnext(options: ResNeXtOptions, num_classes: int, drop_path_rate: float = 0.0) -> ResNeXt:
    return ResNeXt(**asdict(options), num_classes=num_classes, drop_path_rate=drop_path_rate)


def _build_variant(
    _options: NoOptions, num_classes: int, drop_path_rate: float = 0.0, *, structure: ResNeXtOptions
) -> ResNeXt:
    return build_resnext(structure, num_classes, drop_path_rate)


for _name, _structure in VARIANTS.items():
    register_variant[_name](functools.partial(_build_variant, structure=_structure))
