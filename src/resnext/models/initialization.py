"""The values that a network, ours or timm's, starts from where a recipe sets them."""

from torch import nn

from resnext.config_recipe import InitConfig
from resnext.errors import UserError


def initialize(network: nn.Module, head_name: str, config: InitConfig, model_name: str) -> None:
    """Draws the convolutions again and zeroes the bias of `network`'s classifier, called `head_name`, as `config` says.

    Raises:
        UserError: if the network has no convolution, or its classifier no bias.
    """
    if config.conv is not None:
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise UserError(f"recipe.init.conv={config.conv}: model.name={model_name} has no convolutions; take null")
        for module in convolutions:
            nn.init.kaiming_normal_(module.weight, mode=config.conv, nonlinearity="relu")
    if config.zero_classifier_bias:
        bias = dict(network.named_parameters()).get(f"{head_name}.bias")
        if bias is None:
            raise UserError(
                f"recipe.init.zero_classifier_bias=true: model.name={model_name} has no classifier with a bias; "
                "take false"
            )
        nn.init.zeros_(bias)


def starts_at_zero(network: nn.Module) -> bool:
    """Whether a norm or a convolution has only zeros: the last of a block that starts as its shortcut."""
    layers = (module for module in network.modules() if not isinstance(module, nn.Linear))
    weights = (dict(layer.named_parameters(recurse=False)).get("weight") for layer in layers)
    return any(weight is not None and not weight.any() for weight in weights)
