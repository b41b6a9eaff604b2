"""The resolvers that a configuration file may use: ${data_home:}, and ${oc.env:NAME} without secrets."""

import os

from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from resnext.config.paths import PROJECT
from resnext.config.redaction import is_secret_name
from resnext.errors import UserError


def register_resolvers() -> None:
    OmegaConf.register_new_resolver("data_home", data_home, replace=True)
    OmegaConf.register_new_resolver("oc.env", _environment, replace=True)


def data_home() -> str:
    """The default folder to read data from and to write embedded data to: RESNEXT_DATA, or data/ of the project."""
    return os.environ.get("RESNEXT_DATA") or str(PROJECT / "data")


def _environment(name: str, *default: str | None) -> str | None:
    """OmegaConf's oc.env, without secrets."""
    if is_secret_name(name):
        raise UserError(
            f"${{oc.env:{name}}} looks like a secret, and a run saves its configuration as plain text: remove it; "
            f"a program that needs {name} reads it from the environment"
        )
    return oc.env(name, *default)
