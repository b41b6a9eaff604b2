"""resnext benchmark data | index: the speed of the data path and of torchvision and timm, and the cost of the index."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, only_json, print_json
from resnext.errors import UserError
from resnext.terminal import pluralize

if TYPE_CHECKING:
    from resnext.bench.data_path import HeldImages, LoaderSpeed, Timing

NAMES = {
    "ours": "ours, uint8",
    "pil_torchvision": "Pillow + torchvision v1, to float32",
    "torchvision_v2": "torchvision v2, uint8",
    "timm": "timm, uint8",
    "ours_packed": "ours, on the pack",
}


def main(arguments: list[str]) -> int:
    parser = ArgumentParser("resnext benchmark", description="Measure speed on this machine.")
    verbs = parser.add_subparsers(required=True, metavar="WHAT")
    data = verbs.add_parser(
        "data",
        help="from images to training crops",
        description="CPU time and throughput from JPEG bytes to 224-px crops.",
    )
    data.add_argument("--images", type=Path, required=True, help="a folder of photos, or a pack")
    data.add_argument("--pack", type=Path, help="a pack of the same images, timed as one more row")
    data.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="DataLoader workers (default: one per core)"
    )
    add_json(data)
    data.set_defaults(measure=_data)
    index = verbs.add_parser(
        "index",
        help="the list of all images: time and memory",
        description="The cost of the list of all images: time at a first and a later start, memory of a worker.",
    )
    index.add_argument("root", type=Path, metavar="DIR", help="a folder that holds train/CLASS/ and val/CLASS/")
    add_json(index)
    index.set_defaults(measure=_index)
    options = parser.parse_args(arguments)
    options.measure(options)
    return 0


def _index(options: argparse.Namespace) -> None:
    from resnext.bench.index import measure_index

    with only_json(options.json):
        cost = measure_index(options.root)
    if options.json:
        print_json({"root": options.root, **cost._asdict()})
        return
    print(f"{pluralize(cost.images, 'image')} below {options.root}")
    print(f"first start: listed in {cost.list_seconds:.2f} s; later starts: loaded in {cost.load_seconds:.2f} s")
    print(f"a DataLoader worker that has read the whole list uses {cost.worker_mib:.1f} MiB more")


def _data(options: argparse.Namespace) -> None:
    if not options.images.is_dir():
        raise UserError(f"--images {options.images} is not a folder: give a folder of photos")

    from resnext.bench.data_path import read_jpegs, time_loaders, time_pipelines
    from resnext.data.pack import is_pack

    if options.pack and not is_pack(options.pack):
        raise UserError(f'--pack {options.pack} is not a pack: make a pack with `make prepare ARGS="pack SRC DST"`')

    images = read_jpegs(options.images)
    with only_json(options.json):
        timings = time_pipelines(images, read_jpegs(options.pack) if options.pack else None)
        loaders = time_loaders(images, options.workers)
    if options.json:
        print_json(_as_dict(images, timings, loaders, options.workers))
    else:
        _print(images, timings, loaders, options.workers)


def _as_dict(
    images: "HeldImages", timings: "dict[str, Timing]", loaders: "dict[str, LoaderSpeed]", workers: int
) -> dict[str, object]:
    return {
        "images": len(images),
        "ratio": {name: round(timing.ratio, 3) for name, timing in timings.items()},
        "quartiles": {name: [round(side, 3) for side in timing.quartiles] for name, timing in timings.items()},
        "cpu_ms_per_image": {name: round(timing.milliseconds, 3) for name, timing in timings.items()},
        "loader": {name: {"workers": workers, **speed._asdict()} for name, speed in loaders.items()},
    }


def _print(images: "HeldImages", timings: "dict[str, Timing]", loaders: "dict[str, LoaderSpeed]", workers: int) -> None:
    mean = sum(map(len, images.files)) / len(images)
    print(f"{images.root}\n{len(images)} JPEG files of {mean / 1000:.0f} kB on average\n")
    print(f"{'CPU time on one core, bytes to a 224-px crop':46}{'ms':>6}{'speed':>8}  quartiles")
    for name, timing in timings.items():
        low, high = timing.quartiles
        print(f"{NAMES[name]:46}{timing.milliseconds:6.2f}{timing.ratio:7.2f}×  {low:.2f} to {high:.2f}")
    print(f"\n{f'a whole DataLoader, data.workers={workers}':42}{'images/s':>10}{'speed':>8}  kB an image")
    for name, speed in loaders.items():
        print(f"{NAMES[name]:42}{speed.images_per_sec:10,.0f}{speed.ratio:7.2f}×  {speed.bytes_per_image / 1000:.0f}")
