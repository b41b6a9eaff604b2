"""Freezes parts of a network, for fine-tuning: their parameters, batch statistics and random layers."""

from collections.abc import Sequence

from torch import nn

from resnext.config.errors import nearest
from resnext.config.model import ModelConfig
from resnext.errors import UserError


def freeze(network: nn.Module, config: ModelConfig) -> None:
    """Excludes the parameters that `config.freeze` names from the training: they get no gradient.

    Raises:
        UserError: if a name in `config.freeze` matches nothing, or no parameter is left to train.
    """
    tensors = [name for name, _ in network.named_parameters(remove_duplicate=False)]
    tensors += [name for name, _ in network.named_buffers(remove_duplicate=False)]
    for prefix in config.freeze:
        if not any(_is_below(name, [prefix]) for name in tensors):
            known = [name for name, _ in network.named_modules() if any(_is_below(each, [name]) for each in tensors)]
            hint = nearest(prefix, [*known, *tensors]) or f"; its parts are {', '.join(_first_names(tensors))}"
            raise UserError(f"model.freeze={prefix} matches no parameter of model.name={config.name}{hint}")
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if _is_below(name, config.freeze):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(
            f"model.freeze=[{','.join(config.freeze)}] leaves nothing to train in model.name={config.name}: leave out "
            f"a part, such as {_first_names(tensors)[-1]}"
        )


def find_frozen_modules(network: nn.Module, prefixes: Sequence[str]) -> list[nn.Module]:
    """The modules that `prefixes` name, and the modules in them. They must stay in evaluation mode.

    So their batch norms keep their statistics, as with `timm.utils.freeze` and torchvision's FrozenBatchNorm2d. Their
    dropout and stochastic depth are off, as in mmpretrain's frozen stages: a frozen part computes what it computes in
    an evaluation.
    """
    modules = network.named_modules(remove_duplicate=False)
    return [module for name, module in modules if _is_below(name, prefixes)]


def describe_frozen(network: nn.Module, prefixes: Sequence[str]) -> str | None:
    """`225,344 of 22,985,000 parameters: conv1, bn1, layer1`; None if nothing is frozen."""
    if not prefixes:
        return None
    counts = [(each.numel(), each.requires_grad) for each in network.parameters()]
    frozen = sum(count for count, trained in counts if not trained)
    return f"{frozen:,} of {sum(count for count, _ in counts):,} parameters: {', '.join(prefixes)}"


def _is_below(name: str, prefixes: Sequence[str]) -> bool:
    """Whether `name` is one of `prefixes`, or begins with one of them and a dot."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def _first_names(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[0] for name in names))
