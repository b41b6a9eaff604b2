"""resnext export RUN --format FORMAT: write the trained network for another library."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resnext.cli.arguments import ArgumentParser, positive
from resnext.cli.json_output import add_json, only_json, print_json
from resnext.errors import UserError
from resnext.terminal import describe_bytes

if TYPE_CHECKING:
    from resnext.run.directory import Run

NAMES = ("safetensors", "torch", "timm", "torchvision", "onnx", "torchexport")


def main(arguments: list[str]) -> int:
    options = _parse(arguments)

    from resnext.run.directory import Run

    run = None if options.run.is_file() else Run.open(options.run)  # a wrong name is reported before torch is imported

    from resnext.config.weights_file import TIMM_CARD
    from resnext.inference.export import check_export, export, sample_images
    from resnext.inference.formats import FORMATS
    from resnext.inference.model_card import build_card, check_license, describe_card
    from resnext.inference.network import open_network

    license = check_license(options.license) if options.license is not None else None
    chosen = FORMATS[options.format]
    choices = {"fold_batchnorm": options.fold_batchnorm, "opset": options.opset}
    trained = open_network(options.run, options.weights)
    ending = ("-raw" if options.weights == "raw" else "") + (chosen.suffix or "-timm")
    output = options.output or _default_output(run, options.run, ending)
    if output.absolute() == options.run.absolute():
        raise UserError(f"{output} would replace the file that is exported: give another --output")
    check_export(trained.metadata, options.format, output, **choices)
    images, are_own = sample_images(trained.metadata, run)
    card = build_card(trained, run, output.name, license=license) if options.format == "timm" else None
    with only_json(options.json):
        result = export(trained, options.format, output, images, **choices, card=card.text if card else "")
    size, classes = trained.metadata.image_size, len(trained.metadata.classes)
    if options.json:
        about = {"format": options.format, "library": chosen.library, "is_ema": trained.is_ema}
        shapes = {"image_size": size, "classes": classes}
        checked = {"checked_images": result.images, "max_difference": result.difference}
        print_json({"path": result.path, "bytes": _bytes(result.path), **about, **shapes, **checked})
        return 0
    kind = "validation images of the run" if are_own else "random images"
    print(f"exported  {result.path}, {describe_bytes(_bytes(result.path))}")
    kept = "those of the exported file" if trained.step is None else "trained weights"
    print(f"weights   {'EMA weights' if trained.is_ema else kept}")
    print(f"takes     images float32 [batch, 3, {size}, {size}], normalised; gives logits [batch, {classes}]")
    print(f"checked   {result.images} {kind} in {chosen.library}: largest difference {result.difference:.1e}")
    if card is not None:
        print(f"card      {result.path / TIMM_CARD}: {describe_card(card)}")
    print(f"open      {chosen.opens.replace('PATH', str(result.path))}")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        "resnext export",
        description="Write the trained network for another library, with its class names and its preprocessing. The "
        "result is read back by that library, and its logits are compared with the network's.",
    )
    parser.add_argument("run", metavar="RUN|FILE", type=Path, help="runs/NAME (its best.ckpt), or a checkpoint file")
    parser.add_argument("--format", required=True, choices=NAMES, help="timm writes a folder, the others write a file")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="the EMA weights if any (default), or the trained ones"
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="default: runs/NAME/exports/, or beside FILE")
    parser.add_argument(
        "--fold-batchnorm", action="store_true", help="torchexport only: merge batch norms into convolutions"
    )
    parser.add_argument("--opset", type=positive, metavar="N", help="onnx only: the version of the ONNX operators")
    parser.add_argument("--license", metavar="ID", help="timm only: the licence in the model card, such as apache-2.0")
    add_json(parser)
    options = parser.parse_args(arguments)
    if options.license is not None and options.format != "timm":
        raise UserError(
            f"--license is for --format timm, and not for --format {options.format}: only timm has a model card"
        )
    return options


def _default_output(run: "Run | None", path: Path, ending: str) -> Path:
    if run is not None:
        return run.path / "exports" / f"{run.path.name}{ending}"
    return path.with_name(f"{path.stem}{ending}")


def _bytes(path: Path) -> int:
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()))
