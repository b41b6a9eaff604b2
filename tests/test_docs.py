"""The commands in README.md and docs/ are accepted; links, keys, options and error texts exist."""

import argparse
import ast
import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from resnext.__main__ import VERBS, run_verb
from resnext.cli.arguments import ArgumentParser
from resnext.cli.check import split_flags
from resnext.config.compose import CONFIGS, apply_overrides, composer
from resnext.config.errors import has_key
from resnext.config.hydra_settings import parse_arguments
from resnext.config.model import ResNeXtOptions
from resnext.config.schema import Config, schema_defaults
from resnext.config.sweep import parse_sweep
from resnext.sweep.check_space import check_space
from support.commands import OURS, PAGES, PROJECT, Call, blocks, recorded_calls

NEEDS = (  # what a block of commands may say after `# needs `
    "a run",
    "a SLURM cluster",
    "ImageNet",
    "ImageNet's archives",
    "the internet",
    "Docker",
    "Apptainer",
    "half a minute",
    "the package hydra-submitit-launcher (pip install -e '.[slurm]')",
)
COMPOSED = ("train", "slurm", "check")  # verbs whose arguments are a configuration
RUN_HERE = ("status", "recipes", "models")  # verbs that are run, not only parsed
FOREIGN = {  # options of other programs, by page
    "coming-from.md": re.compile(r".*"),
    "slurm.md": re.compile(r"--(mail-type|signal|NAME)"),
    "log.md": re.compile(r"--append"),
    "performance.md": re.compile(r"--nproc-per-node"),
    "watching.md": re.compile(r"--logdir"),
}
GROUPS = ("model", "data", "recipe", "callbacks", "trainer", "checkpoint", "logger", "slurm")
NOT_KEYS = {  # attributes of Lightning's Trainer, a file, and a mistake that is an example
    "trainer.global_rank",
    "trainer.should_stop",
    "model.safetensors",
    "recipe.optimizer.lrr",
}
KEY = re.compile(rf"(?<![\w./-])(?:{'|'.join(GROUPS)})\.[a-z_][\w.]*(?:\{{[\w,]+\}})?(?![\w/(])")
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


class Parsed(Exception):
    """Ends a verb after its arguments were parsed."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    folder = tmp_path_factory.mktemp("project")
    (experiment,) = [each for each in blocks("yaml") if "~/my-configs/experiment/mine.yaml" in each.text]
    (folder / "my-configs/experiment").mkdir(parents=True)
    (folder / "my-configs/experiment/mine.yaml").write_text(experiment.text)
    return recorded_calls(folder)


def test_a_block_with_our_commands_is_marked_as_bash():
    wrong = [block for block in blocks() if block.language != "bash" and any(map(OURS.match, block.lines))]
    assert [(block.page, block.lines[0]) for block in wrong if block.language in ("", "text", "sh")] == []


def test_a_block_says_what_it_needs_if_its_commands_are_not_tried_here(calls: list[Call]):
    assert {block.needs for block in blocks("bash")} <= {"", *NEEDS}
    tried = {(call.block, call.line) for call in calls if _is_tried(call)}
    unmarked = [block for block in blocks("bash") if not block.needs]
    assert [(each.page, line) for each in unmarked for line in each.lines if (each, line) not in tried] == []


def _is_tried(call: Call) -> bool:
    return call.program != "resnext" or call.arguments[0] in (*COMPOSED, "sweep", "--help", *RUN_HERE)


def test_every_command_passes_arguments_that_its_verb_accepts(calls: list[Call], monkeypatch: pytest.MonkeyPatch):
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(ArgumentParser, name, _ending(getattr(argparse.ArgumentParser, name)))
    checked = 0
    for call in calls:
        if call.program != "resnext" or call.arguments[0] in (*COMPOSED, "--help"):
            continue
        verb, *arguments = call.arguments
        with pytest.raises(Parsed) as ended:
            importlib.import_module(f"resnext.cli.{verb}").main(arguments)
        for override in getattr(ended.value.args[0], "overrides", []):
            assert has_key(override.partition("=")[0], schema_defaults()), call
        checked += 1
    assert checked > 30


def _ending(parse: Callable[..., argparse.Namespace]) -> Callable[..., None]:
    def end(parser: ArgumentParser, arguments: list[str] | None = None) -> None:
        parser.allow_abbrev = False  # the docs write options out
        raise Parsed(parse(parser, arguments))

    return end


def test_every_train_and_slurm_command_composes_and_divides_its_batch(calls: list[Call]):
    checked = 0
    for verb, *arguments in {tuple(call.arguments) for call in calls if call.program == "resnext" and call.arguments}:
        if verb in COMPOSED and not {"--help", "-sc"}.intersection(arguments):
            _, asked = parse_arguments(split_flags(arguments)[1] if verb == "check" else arguments)
            for job in _jobs([each for each in asked.overrides if not each.startswith("hydra")]):
                config = _configuration(job, asked.config_dir)
                devices = config.trainer.devices if config.trainer.devices != "auto" else 1
                config.split_batch(config.slurm.world_size if verb == "slurm" else devices * config.trainer.nodes)
                checked += 1
    assert checked > 40


def test_every_sweep_command_has_values_that_compose(calls: list[Call]):
    checked = 0
    with composer() as compose:
        for arguments in {tuple(call.arguments[1:]) for call in calls if call.arguments[:1] == ["sweep"]}:
            if any("=" in each for each in arguments):
                check_space(parse_sweep(arguments, [CONFIGS]).sweep, compose)
                checked += 1
    assert checked > 4


def _configuration(overrides: list[str], config_dir: str | None = None) -> Config:
    """As `resnext train` composes it. Each choice of files is composed once, because Hydra takes a quarter second."""
    choices = tuple(sorted(each for each in overrides if each.partition("=")[0] in ("experiment", *GROUPS)))
    return apply_overrides(_composed(choices, config_dir), [each for each in overrides if each not in choices])


@cache
def _composed(choices: tuple[str, ...], config_dir: str | None) -> Config:
    with composer(config_dir) as compose:
        return compose(list(choices))


def _jobs(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of each job of a multirun with one value for each key."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    swept = [each for each in parsed if each.is_sweep_override()]
    if not swept:
        yield overrides
        return
    for value in swept[0].sweep_string_iterator():
        others = [each.input_line for each in parsed if each is not swept[0] and each.input_line]
        yield from _jobs([*others, f"{swept[0].get_key_element()}={value}"])


def test_the_cheap_commands_run(calls: list[Call], capsys: pytest.CaptureFixture[str]):
    cheap = {
        tuple(call.arguments)
        for call in calls
        if call.program == "resnext" and not call.block.needs and _is_cheap(call.arguments)
    }
    assert len(cheap) > 8
    for arguments in sorted(cheap):
        assert run_verb(list(arguments)) == 0, arguments
        assert capsys.readouterr().out, arguments


def _is_cheap(arguments: list[str]) -> bool:
    return arguments[0] in ("--help", *RUN_HERE) or bool({"--help", "--cfg"}.intersection(arguments))


def test_a_test_that_a_page_names_exists(calls: list[Call]):
    text = " ".join(page.read_text() for page in PAGES)
    paths = set(re.findall(r"(?<![\w/])tests/[\w/]+(?:\.py)?(?![\w*])", text))
    paths |= {word for call in calls if call.program == "pytest" for word in call.arguments if word.startswith("tests")}
    assert [path for path in sorted(paths) if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_options_in_the_text_of_a_page_exist(page: Path):
    named = {option for code in _inline_code(page) for option in re.findall(r"(?<!\S)--[a-zA-Z][\w-]*", code)}
    foreign = FOREIGN.get(page.name, re.compile("(?!)"))
    assert [each for each in sorted(named - _options()) if not foreign.fullmatch(each)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_keys_in_the_text_of_a_page_exist(page: Path):
    codes = [code for code in _inline_code(page, right_of_tables=page.name == "coming-from.md") if "/" not in code]
    keys = {key for code in codes for named in KEY.findall(code) for key in _unfold(named.rstrip("."))}
    known = schema_defaults()
    options = set(ResNeXtOptions.__pydantic_fields__)  # pyright: ignore[reportAttributeAccessIssue]
    unknown = [key for key in sorted(keys - NOT_KEYS) if not has_key(key, known)]
    assert [key for key in unknown if key.removeprefix("model.") not in options] == []


def test_a_link_leads_to_a_file_and_a_heading():
    dead = []
    for page in PAGES:
        for target in LINK.findall(_without_blocks(page)):
            if target.startswith(("https://", "http://")):
                continue
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            if not file.is_file() or (anchor and anchor not in _anchors(file)):
                dead.append(f"{page.name}: {target}")
    assert dead == []


def test_every_page_is_in_the_site_and_in_the_list_of_pages():
    names = sorted(path.name for path in PROJECT.glob("docs/*.md"))
    nav = (PROJECT / "docs/site/mkdocs.yml").read_text().partition("nav:")[2]
    assert sorted(re.findall(r"[\w-]+\.md", nav)) == names
    assert {*re.findall(r"\(([\w-]+\.md)\)", (PROJECT / "docs/index.md").read_text()), "index.md"} == {*names}


def test_no_sentence_is_said_twice():
    """Sentences of at least eight words, outside of code and of the drawn page of keys."""
    counts = Counter()
    for page in PAGES:
        if page.name != "keys.md":
            text = " ".join(line for line in _without_blocks(page).splitlines() if not line.startswith(("#", "<!--")))
            counts.update({" ".join(each.split()) for each in re.split(r"(?<=[.:])\s+|\s\|\s", text)})
    assert [text for text, count in counts.items() if count > 1 and len(text.split()) >= 8] == []


def test_the_readme_is_short():
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 120


def test_the_table_of_batches_is_what_the_recipes_say():
    """docs/imagenet.md: recipe, GPUs, global batch and steps of an epoch, whose last, incomplete batch is left out."""
    row = re.compile(
        r"^\| `(\w+)` \| (\d+) \| (\d+) = (\d+) × \d+ × (\d+) \| ([\d,]+) \| not measured \|$", re.MULTILINE
    )
    rows = row.findall((PROJECT / "docs/imagenet.md").read_text())
    assert len(rows) == 9
    for recipe, devices, batch, micro, accumulation, steps in rows:
        choices = ["experiment=resnext50_imagenet", f"recipe={recipe}"]
        config = _configuration([*choices, f"trainer.micro_batch_size={micro}"])
        assert config.split_batch(int(devices)) == (int(micro), int(accumulation))
        assert (config.recipe.batch_size, 1_281_167 // config.recipe.batch_size) == (
            int(batch),
            int(steps.replace(",", "")),
        )


def test_the_commands_of_other_projects_are_those_that_the_recipes_are_compared_with():
    text = (PROJECT / "docs/coming-from.md").read_text()
    for file, name in (("source_timm", "TIMM_RA"), ("source_torchvision", "TORCHVISION_V2")):
        tree = ast.parse((PROJECT / f"tests/recipes/{file}.py").read_text())  # an import would take seconds
        (command,) = [each.value for each in tree.body if isinstance(each, ast.Assign) and each.targets[0].id == name]
        assert ast.literal_eval(command) in text


def test_the_error_texts_of_the_troubleshooting_page_are_in_the_code():
    texts = "\n".join(_texts_in_the_code())
    page = (PROJECT / "docs/troubleshooting.md").read_text()
    shown = re.findall(r"^\| (.+?) \|", page, re.MULTILINE)
    fragments = [fragment for cell in shown for fragment in re.findall(r"`([^`]+)`", cell)]
    assert len(fragments) > 40
    assert [each for each in fragments if each.strip(": ") not in texts] == []


@cache
def _texts_in_the_code() -> tuple[str, ...]:
    trees = [ast.parse(path.read_text()) for path in sorted((PROJECT / "src").rglob("*.py"))]
    return tuple(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@cache
def _options() -> set[str]:
    """The options of all verbs, of Hydra and of make."""
    found = {"--help", *_options_of(parse_arguments([])[0])}

    def end(parser: ArgumentParser, _arguments: list[str] | None = None) -> None:
        raise Parsed(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArgumentParser, "parse_args", end)
        patch.setattr(ArgumentParser, "parse_intermixed_args", end)
        patch.setattr(ArgumentParser, "parse_known_args", end)  # of check, whose other arguments are Hydra's
        for verb in set(VERBS) - {"train", "slurm"}:
            with pytest.raises(Parsed) as ended:
                importlib.import_module(f"resnext.cli.{verb}").main([])
            found |= _options_of(ended.value.args[0])
    return found


def _options_of(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= {option for each in action.choices.values() for option in _options_of(each)}
    return found


def _inline_code(page: Path, *, right_of_tables: bool = False) -> list[str]:
    lines = _without_blocks(page).splitlines()
    if right_of_tables:
        lines = [line.rpartition(" | ")[2] if line.startswith("|") else line for line in lines]
    return re.findall(r"`([^`]+)`", "\n".join(lines))


def _without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _unfold(name: str) -> list[str]:
    """a.{b,c} → a.b and a.c."""
    head, _, rest = name.partition("{")
    return [head + leaf for leaf in rest.rstrip("}").split(",")]


def _anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", _without_blocks(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings]
    return {re.sub(r"\s", "-", heading.strip()) for heading in plain}
