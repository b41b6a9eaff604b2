"""The values that a network, ours or timm's, starts from where a recipe sets them."""

from typing import Literal

from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from resnext.config_recipe import InitConfig
from resnext.errors import UserError


def initialize(network: nn.Module, heads: tuple[str, ...], config: InitConfig, model_name: str) -> None:
    """Gives `network`, whose classifiers are called `heads`, the values that `config` sets.

    Raises:
        UserError: if the network has no convolution, no block that can start as `config` says, or no classifier with
            a bias.
    """
    if config.conv is not None:
        _draw_convolutions(network, config.conv, model_name)
    if config.zero_init_last is not None:  # after the convolutions: in pre-activation blocks the last layer is one
        _set_last_layers(network, model_name, zero=config.zero_init_last)
    if config.zero_classifier_bias:
        _zero_biases(network, heads, model_name)


def _draw_convolutions(network: nn.Module, fan: Literal["fan_in", "fan_out"], model_name: str) -> None:
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise UserError(f"recipe.init.conv={fan}: model.name={model_name} has no convolutions; take null")
    for module in convolutions:
        nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")


def _set_last_layers(network: nn.Module, model_name: str, *, zero: bool) -> None:
    """By `zero_init_last()` of ResNet-like blocks, timm's and ours. A norm of another block is at zero, or never is."""
    if not zero:
        for weight in _weights_at_zero(network, norms_only=True):
            nn.init.ones_(weight)
        return
    blocks = [module for module in network.modules() if hasattr(module, "zero_init_last")]
    for block in blocks:
        block.zero_init_last()  # pyright: ignore[reportCallIssue]
    at_zero = [bool(_weights_at_zero(block)) for block in blocks] or [bool(_weights_at_zero(network, norms_only=True))]
    if not all(at_zero):
        raise UserError(
            f"recipe.init.zero_init_last=true: model.name={model_name} has no residual blocks that can start at zero; "
            "recipe.init.zero_init_last=null starts it as timm does"
        )


def _zero_biases(network: nn.Module, heads: tuple[str, ...], model_name: str) -> None:
    parameters = dict(network.named_parameters())
    for head in heads:
        if f"{head}.bias" not in parameters:
            raise UserError(
                f"recipe.init.zero_classifier_bias=true: model.name={model_name} has no classifier with a bias; "
                "take false"
            )
        nn.init.zeros_(parameters[f"{head}.bias"])


def _weights_at_zero(network: nn.Module, *, norms_only: bool = False) -> list[Tensor]:
    """Those of norms, which have one dimension, and of convolutions.

    A GlobalResponseNorm is at zero by design: it adds to its input (Woo et al. 2023).
    """
    found = []
    for module in network.modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is None or weight.any() or isinstance(module, GlobalResponseNorm):
            continue
        if weight.ndim == 1 or (isinstance(module, nn.Conv2d) and not norms_only):
            found.append(weight)
    return found
