"""resnext VERB …: picks the verb, and turns what ends it into an exit code. Imports nothing heavy."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from resnext.errors import Interrupted, RunFailed, UserError, describe_os_error
from resnext.runtime.slurm_job import tell_batch_script

VERBS = {
    "train": "make a run from a configuration and train it, or go on with it",
    "fit": "train a run directory: one process, or one rank of torchrun or srun",
    "slurm": "make a run and submit it as a SLURM job, or go on with it",
    "status": "say where runs are: state, position, time left, SLURM job",
    "resume": "go on with a run; without a name, with the latest that is not finished",
    "compare": "say whether two runs are identical, and where they first differ",
    "evaluate": "count the validation images that a checkpoint of a run gets right",
    "recipes": "the published ways to train, and what one of them would run",
    "prepare": "write images where a run finds them: ImageNet, CIFAR, packed shards",
    "benchmark": "measure the data path beside torchvision's and timm's own code",
}


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run_verb(list(sys.argv[1:] if arguments is None else arguments)))


def run_verb(arguments: list[str]) -> int:
    """0 done, 2 the user's mistake, 1 a failure, 130 interrupted, 143 terminated."""
    if arguments[:1] == ["-sc"] and "COMP_LINE" in os.environ:
        arguments = _complete(arguments) or []
        if not arguments:
            return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    verb, *rest = arguments
    code = _run(verb, rest)
    if verb == "fit":
        tell_batch_script(code)
    return code


def _run(verb: str, rest: list[str]) -> int:
    try:
        if verb not in VERBS:
            raise UserError(f"unknown verb; it is one of {', '.join(VERBS)}")
        return importlib.import_module(f"resnext.cli.{verb}").main(rest)
    except UserError as error:
        return _say(verb, error, 2)
    except RunFailed as error:
        return _say(verb, error, error.exit_code)
    except BrokenPipeError:  # `resnext recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _say(verb, describe_os_error(error), 1 if verb == "fit" else 2)  # a job, or torchrun, tries again
    except Interrupted as error:
        return 128 + error.signum
    except KeyboardInterrupt:
        return _say(verb, "interrupted", 128 + signal.SIGINT)


def _say(verb: str, error: object, code: int) -> int:
    if str(error):
        print(f"resnext {verb}: {error}", file=sys.stderr)
    return code


def _help() -> str:
    lines = [f"  {verb:10}{summary}" for verb, summary in VERBS.items()]
    return "\n".join(["usage: resnext VERB [ARGUMENTS]", "", *lines, "", "`resnext VERB --help` tells its arguments."])


def _complete(arguments: list[str]) -> list[str] | None:
    """What to run for Hydra's completion, which calls `resnext -sc query=bash` with the whole line in COMP_LINE.

    Verbs are completed here; after `train` it is Hydra's turn, which must not see the verb; None: nothing more to do.
    """
    command, _, rest = os.environ["COMP_LINE"].partition(" ")
    verb, space, words = rest.lstrip().partition(" ")
    if not space:
        print(" ".join(VERBS))
        return None
    if words.split()[-1:] in (["--config-dir"], ["-cd"]):  # bash completes the folder
        return None
    os.environ["COMP_LINE"] = f"{command} {words.lstrip()}"
    return ["train", *arguments] if verb == "train" else None


if __name__ == "__main__":
    main()
