"""resnext prepare imagenet | pack | cifar10 | cifar100: write images as `data.root` needs them."""

import argparse
import re
import signal
import sys
from pathlib import Path
from typing import Any

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, only_json, print_json
from resnext.errors import UserError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
SMALLEST_SHARD = 2**20


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        with only_json(options.json):
            facts = options.prepare(options)
    except KeyboardInterrupt:
        print("interrupted; repeat the same command to continue", file=sys.stderr if options.json else None)
        return 128 + signal.SIGINT
    if options.json:
        print_json(facts)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser("resnext prepare", description="Write images in the layout that data.root needs.")
    verbs = parser.add_subparsers(required=True, metavar="WHAT")

    imagenet = verbs.add_parser(
        "imagenet",
        help="ImageNet-1k in class folders, from its archives or Kaggle's download",
        description="SRC holds ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz "
        "(their md5 is checked), or Kaggle's ILSVRC/ and LOC_val_solution.csv (files are linked if possible).",
    )
    imagenet.add_argument("source", type=Path, metavar="SRC")
    imagenet.add_argument("target", type=Path, metavar="DST", help="the folder for train/WNID/ and val/WNID/")
    imagenet.set_defaults(prepare=_imagenet)

    pack = verbs.add_parser(
        "pack",
        help="an image folder as tar shards, for file systems that are slow with small files",
        description="Every image is decoded once. Bad images are left out; DST/bad.txt lists them. DST is a data.root.",
    )
    pack.add_argument("source", type=Path, metavar="SRC", help="a folder that holds train/CLASS/ and val/CLASS/")
    pack.add_argument("target", type=Path, metavar="DST")
    pack.add_argument(
        "--short-side",
        type=_pixels,
        metavar="PIXELS",
        help="maximum short side: larger images are resized; without it, files are copied unchanged",
    )
    pack.add_argument(
        "--shard-size", type=_bytes, metavar="SIZE", default="1GiB", help="such as 500MB; at least 1MiB (default: 1GiB)"
    )
    pack.add_argument(
        "--val-fraction",
        type=_fraction,
        metavar="SHARE",
        help="as data.val_fraction: the share of each class for validation, if SRC has no val/ (or no splits at all)",
    )
    pack.set_defaults(prepare=_pack)

    for name in ("cifar10", "cifar100"):
        cifar = verbs.add_parser(name, help="download with torchvision, and write PNG files in class folders")
        cifar.add_argument("target", type=Path, nargs="?", metavar="DST", help=f"default: data.root of data={name}")
        cifar.set_defaults(prepare=_cifar, name=name)
    for verb in verbs.choices.values():
        add_json(verb)
    return parser


def _imagenet(options: argparse.Namespace) -> dict[str, Any]:
    from resnext.prepare.imagenet import prepare_imagenet

    train, val = prepare_imagenet(options.source, options.target)
    print(f"{options.target}: {train:,} training and {val:,} validation images")
    return _facts(options.target, train, val)


def _pack(options: argparse.Namespace) -> dict[str, Any]:
    from resnext.prepare.pack import BAD, prepare_pack

    if not options.source.is_dir():
        raise UserError(f"{options.source} is not a folder: give the folder that holds train/CLASS/ and val/CLASS/")
    packed = prepare_pack(
        options.source,
        options.target,
        short_side=options.short_side,
        shard_bytes=options.shard_size,
        val_fraction=options.val_fraction,
    )
    target = options.target.absolute()
    print(f"{packed.train:,} training and {packed.val:,} validation images; train on them with DATA={target}")
    if packed.bad:
        print(f"left out because they cannot be read: {len(packed.bad):,}, listed in {target / BAD}")
    return _facts(target, packed.train, packed.val) | {"unreadable_images": len(packed.bad)}


def _cifar(options: argparse.Namespace) -> dict[str, Any]:
    from resnext.config.resolvers import data_home
    from resnext.prepare.cifar import prepare_cifar

    target = options.target or Path(data_home()) / options.name
    train, val = prepare_cifar(options.name, target)
    print(f"{target}: {train:,} training and {val:,} validation images")
    return _facts(target, train, val)


def _facts(target: Path, train: int, val: int) -> dict[str, Any]:
    return {"path": target.absolute(), "train_images": train, "val_images": val}


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels, such as 256")
    return int(text)


def _fraction(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 0.1")
    return share


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmg]?i?)b?", text.lower())
    if match is None or match[2] not in UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 1GiB or 500MB")
    size = int(float(match[1]) * UNITS[match[2]])
    if size < SMALLEST_SHARD:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1MiB")
    return size
