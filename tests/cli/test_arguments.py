"""A mistake in the arguments of a verb gives one line that points to the help."""

import pytest

from resnext.__main__ import run_verb

MISTAKES = {
    "evaluate": "the following arguments are required: RUN|FILE",
    "evaluate --checkpoint worst x": "argument --checkpoint: invalid choice: 'worst' (choose from 'best', 'last')",
    "fit": "the following arguments are required: run",
    "compare a": "the following arguments are required: other",
    "status --bogus": "unrecognized arguments: --bogus",
    "resume --bogus": "unrecognized arguments: --bogus",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_gives_one_line(arguments: str, capsys: pytest.CaptureFixture[str]):
    verb = arguments.split()[0]
    assert run_verb(arguments.split()) == 2
    help_line = f"`resnext {verb} --help` explains the arguments"
    assert capsys.readouterr() == ("", f"resnext {verb}: {MISTAKES[arguments]}; {help_line}\n")


def test_a_mistake_in_a_part_of_a_verb_points_to_its_help(capsys: pytest.CaptureFixture[str]):
    assert run_verb(["benchmark", "data", "--images"]) == 2
    assert capsys.readouterr().err == (
        "resnext benchmark: argument --images: expected one argument; "
        "`resnext benchmark data --help` explains the arguments\n"
    )
