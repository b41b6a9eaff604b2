"""resnext publish RUN|FOLDER --repo OWNER/NAME: send the trained network to the Hugging Face Hub."""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnext.cli.arguments import ArgumentParser
from resnext.errors import UserError


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(
        "resnext publish",
        description="Send the trained network to the Hugging Face Hub, as a folder that timm opens, with a model card. "
        "Without --send, only show what would be sent.",
    )
    parser.add_argument(
        "run", metavar="RUN|FOLDER", type=Path, help="runs/NAME (its best.ckpt), or a folder of export --format timm"
    )
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--license", metavar="ID", help="RUN only: the licence in the model card, such as apache-2.0")
    parser.add_argument("--revision", metavar="BRANCH", help="send to this branch; created if it does not exist")
    parser.add_argument("--send", action="store_true", help="send the files; without it, nothing is sent")
    options = parser.parse_args(arguments)

    from resnext.inference.publish import Target, check_login, check_target, find_files, find_license, send

    target = Target(options.repo, options.private, options.revision)
    check_target(target)
    if options.send:
        check_login()
    with _folder(options) as folder:
        files = find_files(folder)
        license = find_license(folder)
        print(f"repository  {target.url}{f', branch {target.revision}' if target.revision else ''}")
        print(f"visible to  {'its owner' if target.private else 'everybody, unless it exists and is private'}")
        print(f"licence     {license or 'missing: ' + _remedy(options, folder)}")
        for path in files:
            print(f"file        {path}, {(folder / path).stat().st_size:,} bytes")
        if not options.send:
            print(f"not sent    this sends the files: {shlex.join(['resnext', 'publish', *arguments, '--send'])}")
            return 0
        _quiet_unless_terminal()
        print(f"sent        {send(folder, files, target)}")
    name = f"hf-hub:{target.repo}{f'@{target.revision}' if target.revision else ''}"
    print(f'open        timm.create_model("{name}", pretrained=True).eval()')
    return 0


@contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    """The folder to send: the given one, or a temporary export of the run's best.ckpt."""
    from resnext.run.directory import Run
    from resnext.run.run_files import is_run

    if (options.run / "config.json").is_file() and not is_run(options.run):
        if options.license is not None:
            raise UserError(f"--license is for a run: write `license: {options.license}` into {options.run}/README.md")
        yield options.run
        return
    run = Run.open(options.run)

    from resnext.inference.export import export, sample_images
    from resnext.inference.formats import FORMATS
    from resnext.inference.model_card import build_card, check_license, describe_card, describe_start
    from resnext.inference.network import open_network

    license = check_license(options.license) if options.license is not None else None
    trained = open_network(run.path)
    if (reason := FORMATS["timm"].holds(trained.metadata.model)) is not None:
        raise UserError(f"{run.path} cannot be published: timm has no network like it, because {reason}")
    with tempfile.TemporaryDirectory(prefix="resnext-publish-") as aside:
        folder = Path(aside, options.repo.rpartition("/")[2])
        images, _ = sample_images(trained.metadata, run)
        card = build_card(trained, run, folder.name, license=license, repo=options.repo)
        result = export(trained, "timm", folder, images, card=card.text)
        print(f"network     {run.path}, read back by timm: largest difference {result.difference:.1e}")
        print(f"card        {describe_card(card)}")
        if (start := describe_start(run.config)) is not None:
            print(f"started     from {start}")
        yield folder


def _remedy(options: argparse.Namespace, folder: Path) -> str:
    if folder == options.run:
        return f"write `license: ID` into {folder}/README.md"
    return "give --license ID, such as apache-2.0, if the training images and the initial weights allow it"


def _quiet_unless_terminal() -> None:
    """Turns off the progress bars of the hub's client if stderr is not a terminal."""
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
