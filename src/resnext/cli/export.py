"""resnext export RUN --format FORMAT: write the trained network for another library."""

from pathlib import Path

from resnext.cli.arguments import ArgumentParser, positive

NAMES = ("safetensors", "torch", "timm", "torchvision", "onnx", "torchexport")


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(
        "resnext export",
        description="Write the trained network for another library, with its class names and its preprocessing. The "
        "result is read back by that library, and its logits are compared with the network's.",
    )
    parser.add_argument("run", metavar="RUN|FILE", type=Path, help="runs/NAME (its best.ckpt), or a checkpoint file")
    parser.add_argument("--format", required=True, choices=NAMES, help="timm writes a folder, the others write a file")
    parser.add_argument(
        "--weights", choices=("ema", "raw"), default="ema", help="the average if there is one, or the trained weights"
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="default: runs/NAME/exports/, or beside FILE")
    parser.add_argument("--fold-batchnorm", action="store_true", help="merge batch norms into convolutions")
    parser.add_argument("--opset", type=positive, metavar="N", help="of ONNX (default: torch's)")
    options = parser.parse_args(arguments)

    from resnext.inference.export import check_export, export, sample_images
    from resnext.inference.formats import FORMATS
    from resnext.inference.network import open_network
    from resnext.run.directory import Run

    chosen = FORMATS[options.format]
    run = None if options.run.is_file() else Run.open(options.run)
    trained = open_network(options.run, options.weights)
    output = options.output or _default_output(run, options.run, chosen.suffix or "-timm")
    check_export(trained.metadata, options.format, output, fold_batchnorm=options.fold_batchnorm, opset=options.opset)
    images, are_own = sample_images(trained.metadata, run)
    result = export(trained, options.format, output, images, fold_batchnorm=options.fold_batchnorm, opset=options.opset)
    size, classes = trained.metadata.image_size, len(trained.metadata.classes)
    kind = "validation images of the run" if are_own else "random images"
    print(f"exported  {result.path}, {_bytes(result.path) / 1e6:,.1f} MB")
    print(f"takes     images float32 [batch, 3, {size}, {size}], normalized; gives logits [batch, {classes}]")
    print(f"checked   {result.images} {kind} in {chosen.library}: largest difference {result.difference:.1e}")
    print(f"open      {chosen.opens.replace('PATH', str(result.path))}")
    return 0


def _default_output(run: "object | None", path: Path, ending: str) -> Path:
    from resnext.run.directory import Run

    if isinstance(run, Run):
        return run.path / "exports" / f"{run.path.name}{ending}"
    return path.with_name(f"{path.stem}{ending}")


def _bytes(path: Path) -> int:
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()))
