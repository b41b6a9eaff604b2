"""The argument parser of every verb that does not compose a configuration."""

import argparse
from typing import NoReturn

from resnext.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, except that a mistake raises UserError: one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` explains the arguments")


def positive(text: str) -> int:
    """The type of a command-line argument that is a count."""
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return int(text)
