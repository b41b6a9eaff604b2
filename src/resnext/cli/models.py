"""resnext models: list our networks with their cost, or compare them with torchvision's and timm's."""

from typing import TYPE_CHECKING, Any

from resnext.cli.arguments import ArgumentParser
from resnext.cli.json_output import add_json, print_json
from resnext.config.errors import nearest
from resnext.config.model import TIMM_PREFIX, VARIANTS
from resnext.errors import UserError
from resnext.registry import find_part, part_names

if TYPE_CHECKING:
    from resnext.models.catalog import Entry

HEADER = f"{'model.name':18} {'C×d':>7} {'px':>4} {'parameters':>12} {'MACs':>9} {'activations':>12} {'error':>7}"


def main(arguments: list[str]) -> int:
    parser = ArgumentParser(
        "resnext models",
        description="List our networks, for one image: parameters, multiply-accumulates (MACs), activations (outputs "
        "of convolutions and of the classifier), and the top-1 error in the paper.",
    )
    parser.add_argument("--filter", default="", metavar="TEXT", help="only names that contain TEXT")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare the logits with torchvision's and timm's")
    what.add_argument("--timm", action="store_true", help="list timm's networks, for model.name")
    add_json(parser)
    options = parser.parse_args(arguments)
    if options.timm:
        return _print_timm(options.filter, as_json=options.json)
    names = [name for name in part_names("network") if options.filter in name and name != "resnext"]
    if not names:
        known = part_names("network")
        raise UserError(f"no network has {options.filter} in its name{nearest(options.filter, known)}")
    if options.check:
        return _check(names, as_json=options.json)
    ours, registered = ([name for name in names if (name in VARIANTS) == is_ours] for is_ours in (True, False))
    return _print_table(ours, registered, as_json=options.json)


def _print_table(ours: list[str], registered: list[str], *, as_json: bool) -> int:
    from resnext.models.catalog import describe_variant

    if as_json:
        rows = [_to_plain(describe_variant(name)) for name in ours]
        print_json({"networks": [*rows, *({"name": name, "module": _module_of(name)} for name in registered)]})
        return 0
    if ours:
        print(HEADER)
    for name in ours:
        entry = describe_variant(name)
        error = f"{entry.error} %" if entry.error is not None else ""
        print(
            f"{name:18} {entry.width:>7} {entry.image_size:4} {entry.parameters:12,} {entry.macs / 1e9:7.3f} G "
            f"{entry.activations / 1e6:10.2f} M {error:>7}".rstrip(),
            flush=True,
        )
    for name in registered:
        print(f"{name:18} of {_module_of(name)}")
    return 0


def _to_plain(entry: "Entry") -> dict[str, Any]:
    structure = VARIANTS[entry.name]
    counts = {name: getattr(entry, name) for name in ("image_size", "parameters", "macs", "activations")}
    widths = {"cardinality": structure.cardinality, "base_width": structure.base_width}
    return {"name": entry.name, **widths, **counts, "published_top1_error_percent": entry.error}


def _module_of(name: str) -> str:
    part = find_part("network", name)
    assert part is not None
    return part.module


def _check(names: list[str], *, as_json: bool) -> int:
    from resnext.models.catalog import compare_with_libraries

    if as_json:
        every = [each for name in names if name in VARIANTS for each in compare_with_libraries(name)]
        print_json({"comparisons": [{**each._asdict(), "equal": each.is_equal} for each in every]})
        return 0 if all(each.is_equal for each in every) else 1
    failed = 0
    for name in names:
        found = list(compare_with_libraries(name)) if name in VARIANTS else []
        for each in found:
            failed += not each.is_equal
            result = "equal" if each.is_equal else "DIFFERENT"
            difference = f"largest difference of the logits {each.difference:.1e} of the largest logit"
            print(f"{name:18} {each.library + ' ' + each.twin:30} {result}: {difference}", flush=True)
        if not found:
            print(f"{name:18} in neither torchvision nor timm", flush=True)
    return 1 if failed else 0


def _print_timm(text: str, *, as_json: bool) -> int:
    import timm

    names = timm.list_models(f"*{text}*")
    if not names:
        raise UserError(
            f"no network of timm {timm.__version__} has {text} in its name{nearest(text, timm.list_models())}"
        )
    if as_json:
        print_json({"networks": [TIMM_PREFIX + name for name in names]})
        return 0
    for name in names:
        print(TIMM_PREFIX + name)
    return 0
