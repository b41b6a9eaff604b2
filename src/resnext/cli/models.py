"""resnext models: list our networks with their cost, or compare them with torchvision's and timm's."""

from resnext.cli.arguments import ArgumentParser
from resnext.config.errors import nearest
from resnext.config.model import TIMM_PREFIX, VARIANTS
from resnext.errors import UserError
from resnext.registry import find_part, part_names

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
    options = parser.parse_args(arguments)
    if options.timm:
        return _print_timm(options.filter)
    names = [name for name in part_names("network") if options.filter in name and name != "resnext"]
    if not names:
        known = part_names("network")
        raise UserError(f"no network has {options.filter} in its name{nearest(options.filter, known)}")
    if options.check:
        return _check(names)
    return _print_table([name for name in names if name in VARIANTS], [name for name in names if name not in VARIANTS])


def _print_table(ours: list[str], registered: list[str]) -> int:
    from resnext.models.catalog import describe_variant

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
        part = find_part("network", name)
        assert part is not None
        print(f"{name:18} of {part.module}")
    return 0


def _check(names: list[str]) -> int:
    from resnext.models.catalog import compare_with_libraries

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


def _print_timm(text: str) -> int:
    import timm

    names = timm.list_models(f"*{text}*")
    if not names:
        raise UserError(
            f"no network of timm {timm.__version__} has {text} in its name{nearest(text, timm.list_models())}"
        )
    for name in names:
        print(TIMM_PREFIX + name)
    return 0
