"""One file registers a part, and every mistake in a part gives one line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from resnext.__main__ import run_verb
from resnext.config.describe import describe_recipe
from resnext.config.schema import parse_config, to_dict
from resnext.errors import UserError
from resnext.registry import build_part, find_part
from support.extensions import extensions
from support.small_run import small_config

HEADER = """
from pydantic.dataclasses import dataclass
from resnext.config.types import STRICT, Count
from resnext.registry import register_callback, register_loss, register_network

@dataclass(frozen=True, kw_only=True, config=STRICT)
class Options:
    depth: Count
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
"""
MINE = HEADER + "\n@register_network('mine', options=Options)\ndef build(options, num_classes): ...\n"
WAYS = HEADER + "\n@register_loss('odd', options=Options)\ndef build(options): ...\n"
CALLS = HEADER + "\n@register_callback('call', options=Options)\ndef build(options): ...\n"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"a": MINE, "b": MINE},
            r"the network mine is registered twice, by resnext.extensions.a and by resnext.extensions.b: rename one",
        ),
        (
            {"a": MINE.replace("'mine'", "'resnext'")},
            r"the network resnext is registered twice, by resnext.config.model and by resnext.extensions.a: rename one",
        ),
        (
            {"a": "import nowhere"},
            r"resnext.extensions.a cannot be imported: ModuleNotFoundError: No .* \(.*/a.py:1\); correct the",
        ),
        ({"a": "x ="}, r"resnext.extensions.a cannot be imported: SyntaxError: invalid syntax \(a.py, line 1\);"),
        ({"a": MINE.replace("'mine'", "'a.b'")}, "registers the network 'a.b': a name has only letters, digits, _ and"),
        ({"a": MINE.replace("frozen=True, ", "")}, "the options of the network mine of resnext.extensions.a must be"),
        ({"a": MINE.replace(", config=STRICT", "")}, "the options of the network mine of resnext.extensions.a must be"),
    ],
)
def test_a_wrong_extension_gives_one_line(tmp_path: Path, modules: dict[str, str], message: str):
    with extensions(tmp_path / "extensions", **modules):
        for _ in range(2):  # the second import gives the same message
            with pytest.raises(UserError, match=message) as error:
                find_part("network", "mine")
            assert "\n" not in str(error.value)


def test_only_other_modules_import_a_module_that_begins_with_an_underscore(tmp_path: Path):
    with extensions(tmp_path / "extensions", _shared=HEADER, a=MINE.replace(HEADER, "from ._shared import *\n")):
        assert find_part("network", "mine") is not None
    assert find_part("network", "mine") is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", {"name": "mine"}, "model.options.depth is missing: give it as model.options.depth=VALUE"),
        (
            "model",
            {"name": "mine", "options": {"depth": 0}},
            "model.options.depth=0 is not allowed: it should be greater than or equal to 1",
        ),
        (
            "model",
            {"name": "mine", "options": {"dept": 1}},
            "model.options.dept is not an option of model.name=mine; did you mean depth?",
        ),
        (
            "model",
            {"name": "mine", "options": {"zz": 1}},
            "model.options.zz is not an option of model.name=mine; it takes depth, rate, sizes; begin with a mod",
        ),
        ("model", {"name": "mime"}, "model.name=mime is not a registered network, and timm's are timm/NAME; did you"),
        (
            "recipe__loss",
            {"name": "od"},
            "recipe.loss.name=od is not a registered loss; did you mean odd?",
        ),
        ("recipe__loss", {"name": "odd", "label_smoothing": 0.1}, "recipe.loss.options.depth is missing"),
        (
            "recipe__loss",
            {"name": "odd", "label_smoothing": 0.1, "options": {"depth": 1}},
            "recipe.loss.label_smoothing needs recipe.loss.name=cross_entropy or binary_cross_entropy",
        ),
        (
            "recipe__loss",
            {"options": {"x": 1}},
            "recipe.loss.options.x is not an option of recipe.loss.name=cross_entr",
        ),
        ("recipe__teacher", {"name": "mime"}, "recipe.teacher.name=mime is not a registered network"),
        ("data__name", "qqq", "data.name=qqq is not a registered dataset (registered: image_folder, imagenet, digits"),
        ("callbacks", {"names": ["cal"]}, "callbacks.names=cal is not a registered callback; did you mean call?"),
        (
            "callbacks",
            {"names": ["call"]},
            "callbacks.options.call.depth is missing: give it as callbacks.options.call",
        ),
        ("callbacks", {"options": {"call": {}}}, "callbacks.options.call is given, but call is not in callbacks.names"),
        (
            "callbacks",
            {"names": ["call", "call"], "options": {"call": {"depth": 1}}},
            "callbacks.names=[call,call] has a name twice",
        ),
        (
            "logger__names",
            ["x"],
            "logger.names=x is not a registered logger (registered: wandb, tensorboard, mlflow); add your own in src",
        ),
    ],
)
def test_a_value_that_does_not_fit_a_part_gives_one_line(tmp_path: Path, key: str, value: object, message: str):
    with (
        extensions(tmp_path / "extensions", mine=MINE, ways=WAYS, calls=CALLS),
        pytest.raises(UserError) as error,
    ):
        small_config(tmp_path, **{key: value})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_options_are_saved_and_part_of_the_identity(tmp_path: Path):
    with extensions(tmp_path / "extensions", mine=MINE, calls=CALLS):
        given = {"model": {"name": "mine", "options": {"depth": 3}}}
        config = small_config(tmp_path, **given, callbacks={"names": ["call"], "options": {"call": {"depth": 1}}})
        assert to_dict(config)["model"]["options"] == {"depth": 3, "rate": 0.5, "sizes": [1, 2]}
        assert parse_config(to_dict(config)) == config
        without = small_config(tmp_path, **given)
        assert without.identity() != config.identity()
        other = {"names": ["call"], "options": {"call": {"depth": 2}}}
        assert small_config(tmp_path, **given, callbacks=other).identity() != config.identity()
        with pytest.raises(UserError, match=r"the network mine of .*mine is None: its function must return what it b"):
            build_part("network", "mine", config.model.options, 2)


def test_options_that_a_run_cannot_save_are_refused(tmp_path: Path):
    listing = MINE.replace("tuple[int, ...] = (1, 2)", "list[int]")
    with (
        extensions(tmp_path / "extensions", mine=listing),
        pytest.raises(UserError, match=r"model.options holds a value that a run cannot save: declare text, .* Options"),
    ):
        small_config(tmp_path, model={"name": "mine", "options": {"depth": 1, "sizes": [1]}})


def test_a_loss_is_described_by_its_own_description_or_by_its_options(tmp_path: Path):
    words = WAYS.replace("options=Options)", "options=Options, describe=lambda options: f'odd of {options.depth}')")
    for text, described in ((WAYS, "odd, depth 3, rate 0.5, sizes (1, 2)"), (words, "odd of 3")):
        with extensions(tmp_path / "extensions", ways=text):
            recipe = small_config(tmp_path, recipe__loss={"name": "odd", "options": {"depth": 3}}).recipe
            assert describe_recipe(recipe)["loss"] == described


def test_the_options_of_a_part_are_shown_and_completed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def complete(line: str) -> list[str]:
        environment = {"COMP_LINE": f"resnext train {line}", "COMP_POINT": str(len(line) + 14), "COMP_CWORD": "9"}
        for name, value in environment.items():
            monkeypatch.setitem(os.environ, name, value)
        assert run_verb(["-sc", "query=bash"]) == 0
        return capsys.readouterr().out.split()

    with extensions(tmp_path / "extensions", mine=MINE, calls=CALLS):
        assert (
            run_verb(["train", "--cfg", "job", "model=resnext50_32x4d", "model.name=mine", "model.options.depth=3"])
            == 0
        )
        shown = capsys.readouterr().out
        assert (
            "  name: mine\n  weights: null\n  freeze: []\n  options:\n    depth: 3\n    rate: 0.5\n    sizes:\n"
            in shown
        )
        network = "model=resnext50_32x4d model.name=mine model.options."
        assert complete(network)[:2] == ["model.options.depth=", "model.options.rate="]
        assert complete("callbacks.names=[call] callbacks.options.call.r") == ["callbacks.options.call.rate="]


@pytest.mark.parametrize(
    "read", [lambda: find_part("loss", "cross_entropy"), lambda: run_verb(["train", "--cfg", "job"])]
)
def test_an_extension_is_imported_once(tmp_path: Path, read: Callable[[], object]):
    counting = f"with open({str(tmp_path / 'count')!r}, 'a') as file:\n    file.write('x')\n"
    with extensions(tmp_path / "extensions", counting=counting):
        read()
        read()
    assert (tmp_path / "count").read_text() == "x"
