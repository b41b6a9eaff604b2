"""Initialisation that a recipe overrides, for our networks and timm's."""

from typing import Literal

from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from resnext.config.recipe import InitConfig
from resnext.errors import UserError


def initialize(network: nn.Module, heads: tuple[str, ...], config: InitConfig, model_name: str) -> None:
    """Initialises `network` as `config` says. `heads` are the module names of its classifiers.

    Raises:
        UserError: if `config` needs a convolution, a residual block or a classifier bias that `network` does not have.
    """
    if config.conv is not None:
        _draw_convolutions(network, config.conv, model_name)
    if config.zero_init_last is not None:  # after the convolutions: pre-activation blocks end with a convolution
        _set_last_layers(network, model_name, zero=config.zero_init_last)
    if config.zero_classifier_bias:
        _zero_biases(network, heads, model_name)


def _draw_convolutions(network: nn.Module, fan: Literal["fan_in", "fan_out"], model_name: str) -> None:
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise UserError(
            f"recipe.init.conv={fan}: model.name={model_name} has no convolutions; set recipe.init.conv=null"
        )
    for module in convolutions:
        nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu")


def _set_last_layers(network: nn.Module, model_name: str, *, zero: bool) -> None:
    """Calls `zero_init_last()` of ResNet-like blocks. Other blocks must already have zero-initialised norms."""
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
            f"recipe.init.zero_init_last=true: model.name={model_name} has no residual blocks that can be "
            "zero-initialised; set recipe.init.zero_init_last=null to keep the network's default"
        )


def _zero_biases(network: nn.Module, heads: tuple[str, ...], model_name: str) -> None:
    parameters = dict(network.named_parameters())
    for head in heads:
        if f"{head}.bias" not in parameters:
            raise UserError(
                f"recipe.init.zero_classifier_bias=true: model.name={model_name} has no classifier with a bias; "
                "set recipe.init.zero_classifier_bias=false"
            )
        nn.init.zeros_(parameters[f"{head}.bias"])


def _weights_at_zero(network: nn.Module, *, norms_only: bool = False) -> list[Tensor]:
    """The all-zero weights of norms (which are 1-d) and, unless `norms_only`, of convolutions.

    GlobalResponseNorm is skipped: its weight is zero by design (Woo et al. 2023).
    """
    found = []
    for module in network.modules():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is None or weight.any() or isinstance(module, GlobalResponseNorm):
            continue
        if weight.ndim == 1 or (isinstance(module, nn.Conv2d) and not norms_only):
            found.append(weight)
    return found
