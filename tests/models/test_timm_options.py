"""`model.options` of timm's networks against timm itself."""

from collections.abc import Callable
from typing import Literal, Optional, Union

import pytest
import timm
import torch

from resnext.config.schema import ModelConfig
from resnext.errors import UserError
from resnext.models.factory import build_model
from resnext.models.timm_options import check_timm_options


def test_options_reach_timms_constructor_and_change_no_random_number():
    torch.manual_seed(0)
    options = {"drop_rate": 0.3, "zero_init_last": False}
    ours = build_model(ModelConfig(name="timm/resnet18", options=options), 7)
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", num_classes=7, drop_rate=0.3, zero_init_last=False)
    images = torch.randn(2, 3, 32, 32)
    for network in (ours, theirs):
        network.train()
    torch.manual_seed(1)
    expected = theirs(images)
    torch.manual_seed(1)
    assert torch.equal(ours(images), expected)


def test_a_vision_transformer_takes_another_image_size():
    network = build_model(ModelConfig(name="timm/vit_tiny_patch16_224", options={"img_size": 64}), 3).eval()
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("mlp_ratio", [3.5, 3])
def test_a_number_whose_default_is_an_integer_may_be_a_fraction(mlp_ratio: float):
    """timm writes `mlp_ratio: float = 4`."""
    ours = build_model(ModelConfig(name="timm/davit_tiny", options={"mlp_ratio": mlp_ratio}), 7)
    theirs = timm.create_model("davit_tiny", num_classes=7, mlp_ratio=mlp_ratio)
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert shapes[0] != {name: value.shape for name, value in timm.create_model("davit_tiny").state_dict().items()}


class Network(torch.nn.Module):
    """Parameters as timm's networks have them."""

    def __init__(
        self,
        ratio=4,
        flag=True,
        size: int | tuple[int, int] = 224,
        rate: Optional[float] = None,  # noqa: UP045 - as timm writes it
        pool: Literal["", "avg"] = "avg",
        layer: Union[str, Callable] = "gelu",  # noqa: UP007
        depths: tuple[int, ...] = (1, 2),
        device=None,
        **_more: object,
    ) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("key", "fits", "expected"),
    [
        ("ratio", [3, 3.5], "a number, like its default 4"),
        ("flag", [False], "true or false, like its default true"),
        ("size", [64], "an integer, like its default 224"),
        ("rate", [0.1, 1, None], "a number"),
        ("pool", ["avg"], "text, like its default avg"),
        ("layer", ["relu"], "text, like its default gelu"),
        ("depths", [3, 0.5, "x", None, True], None),  # not a scalar: the constructor decides
        ("device", [3, 0.5, "x", None, True], None),
    ],
)
def test_the_type_of_an_option_is_that_of_its_annotation(
    monkeypatch: pytest.MonkeyPatch, key: str, fits: list, expected: str | None
):
    monkeypatch.setattr(timm, "create_model", lambda _name: Network())
    for value in fits:
        check_timm_options("network", {key: value})
    for value in [] if expected is None else [True, 3, 0.5, "x", None]:
        if type(value) not in map(type, fits):
            with pytest.raises(UserError, match=f"model.options.{key}=.* is not allowed: it should be {expected}$"):
                check_timm_options("network", {key: value})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "resnet18",
            {"drop_rat": 0.1},
            r"model.options.drop_rat is not an option of model.name=timm/resnet18; did you",
        ),
        ("resnet18", {"zzz": 0.1}, r"model.options.zzz is not an option of .*; it takes output_stride, global_pool, "),
        (
            "resnet18",
            {"drop_rate": "x"},
            r"model.options.drop_rate=x is not allowed: it should be a number, like its def",
        ),
        (
            "resnet18",
            {"avg_down": 1},
            r"model.options.avg_down=1 is not allowed: it should be true or false",
        ),
        ("resnet18", {"drop_rate": 0.1, "in_chans": 1}, r"model.options.in_chans cannot be given: images have three"),
        ("resnet18", {"num_classes": 3}, r"model.options.num_classes cannot be given: the number of classes is data.n"),
        ("resnet18", {"pretrained": True}, r"model.options.pretrained cannot be given: give model.weights=timm:NAME"),
        ("resnet18", {"drop_path_rate": 0.1}, r"model.options.drop_path_rate cannot be given: give recipe.drop_path_r"),
        ("resnet18", {"global_pool": "no"}, r"model.name=timm/resnet18 cannot be built with global_pool=no: "),
        ("deit_tiny_distilled_patch16_224", {"qkv_bia": True}, r"did you mean qkv_bias\?"),
    ],
)
def test_an_option_that_the_constructor_does_not_take_gives_one_line(name: str, options: dict, message: str):
    with pytest.raises(UserError, match=message) as error:
        build_model(ModelConfig(name=f"timm/{name}", options=options), 5)
    assert "\n" not in str(error.value)


def test_only_scalars_are_options_of_timm():
    with pytest.raises(ValueError, match=r"model.options.layers=\[1, 1\] is not a scalar"):
        ModelConfig(name="timm/resnet18", options={"layers": [1, 1]})
