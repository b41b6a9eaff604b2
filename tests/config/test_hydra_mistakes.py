"""What Hydra and OmegaConf refuse, as one line."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resnext.config.compose import CONFIGS
from resnext.config.hydra_mistakes import mistakes_in_one_line
from resnext.errors import UserError


def test_an_interrupt_stays_one():
    """OmegaConf's error took the place of a Ctrl-C in its clean-up, and a right file was called wrong."""
    with pytest.raises(KeyboardInterrupt), mistakes_in_one_line(CONFIGS, []):
        try:
            raise KeyboardInterrupt
        finally:
            OmegaConf.create({"a": "${b}"}).a  # noqa: B018


def test_a_mistake_is_one_line():
    with (
        pytest.raises(UserError, match=r"^a: Interpolation key 'b' not found$") as error,
        mistakes_in_one_line(CONFIGS, []),
    ):
        OmegaConf.create({"a": "${b}"}).a  # noqa: B018
    assert isinstance(error.value.__cause__, OmegaConfBaseException)
