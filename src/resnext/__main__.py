"""resnext VERB …: picks the verb, and turns what ends it into an exit code. Imports nothing heavy."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from resnext.errors import Interrupted, RunFailed, UserError

VERBS = {
    "train": "make a run from a configuration and train it, or go on with it",
    "fit": "train a run directory: one process, or one rank of torchrun or srun",
    "resume": "go on with a run; without a name, with the latest that is not finished",
    "evaluate": "count the validation images that a checkpoint of a run gets right",
}


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run_verb(list(sys.argv[1:] if arguments is None else arguments)))


def run_verb(arguments: list[str]) -> int:
    """0 done, 2 the user's mistake, 1 a failure, 130 interrupted, 143 terminated."""
    if _asks_for_completion(arguments):
        arguments = ["train", *arguments]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    verb, *rest = arguments
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb; it is one of {', '.join(VERBS)}")
        return importlib.import_module(f"resnext.cli.{verb}").main(rest)
    except UserError as error:
        return _say(verb, error, 2)
    except RunFailed as error:
        return _say(verb, error, 1)
    except Interrupted as error:
        return 128 + error.signum
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _say(verb: str, error: Exception, code: int) -> int:
    print(f"resnext {verb}: {error}", file=sys.stderr)
    return code


def _help() -> str:
    lines = [f"  {verb:10}{summary}" for verb, summary in VERBS.items()]
    return "\n".join(["usage: resnext VERB [ARGUMENTS]", "", *lines, "", "`resnext VERB --help` tells its arguments."])


def _asks_for_completion(arguments: list[str]) -> bool:
    """Hydra's completion calls `resnext -sc query=bash` with the whole line in COMP_LINE; it must not see the verb."""
    line = os.environ.get("COMP_LINE", "")
    if arguments[:1] != ["-sc"] or not line:
        return False
    command, _, rest = line.partition(" ")
    os.environ["COMP_LINE"] = f"{command} {rest.lstrip().removeprefix('train').lstrip()}"
    return True


if __name__ == "__main__":
    main()
