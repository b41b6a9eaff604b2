"""Errors of Hydra and OmegaConf become one line."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resnext.config.compose import CONFIGS
from resnext.config.hydra_mistakes import mistakes_in_one_line
from resnext.errors import UserError


def test_an_interrupt_is_not_turned_into_an_error():
    """OmegaConf may raise its own error while it handles a Ctrl-C; then a correct file was reported as wrong."""
    with pytest.raises(KeyboardInterrupt), mistakes_in_one_line(CONFIGS, []):
        try:
            raise KeyboardInterrupt
        finally:
            OmegaConf.create({"a": "${b}"}).a  # noqa: B018


def test_a_mistake_gives_one_line():
    with (
        pytest.raises(UserError, match=r"^a: Interpolation key 'b' not found$") as error,
        mistakes_in_one_line(CONFIGS, []),
    ):
        OmegaConf.create({"a": "${b}"}).a  # noqa: B018
    assert isinstance(error.value.__cause__, OmegaConfBaseException)
