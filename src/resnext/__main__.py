"""resnext VERB …: runs the verb, and turns an error into a message and an exit code. Imports nothing heavy."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from resnext.errors import Interrupted, Paused, RunFailed, UserError, describe_os_error
from resnext.runtime.slurm_job import tell_batch_script

VERBS = {
    "train": "create a run from a configuration and train it, or resume it",
    "check": "show what can be known before a training: images, memory, speed, hours",
    "fit": "train a run directory: one process, or one rank of torchrun or srun",
    "sweep": "train many runs as one: grids, searches, early stopping, seeds",
    "slurm": "create a run and submit it as a SLURM job, or resume it",
    "status": "show runs: state, step, time left, SLURM job",
    "resume": "resume a run; without a name, the latest unfinished run",
    "compare": "check whether two runs are identical, or where they differ first",
    "report": "write a page about a run, or about several runs beside each other",
    "evaluate": "compute the accuracy and calibration of a checkpoint",
    "predict": "write the most likely classes of images",
    "export": "write the trained network for timm, torchvision, ONNX Runtime …",
    "publish": "send the trained network to the Hugging Face Hub",
    "average": "average the weights of checkpoints of a run, or of the best ones of several runs",
    "models": "list our networks with their cost, or compare them with torchvision and timm",
    "recipes": "list the recipes, show the training plan of one, or compare two",
    "prepare": "prepare images for training: ImageNet, CIFAR, packed shards",
    "benchmark": "measure the data path, compared with torchvision and timm",
}

WITHOUT_EXTENSIONS = ("fit", "prepare", "benchmark")  # fit imports them itself, when it can receive signals


def main(arguments: Sequence[str] | None = None) -> None:
    sys.exit(run_verb(list(sys.argv[1:] if arguments is None else arguments)))


def run_verb(arguments: list[str]) -> int:
    """Returns the exit code: 0 done, 1 a failure, 2 the user's mistake, 130 interrupted, 143 terminated."""
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
            from resnext.config.errors import nearest

            raise UserError(f"unknown verb; the verbs are {', '.join(VERBS)}{nearest(verb, list(VERBS))}")
        if verb not in WITHOUT_EXTENSIONS and not {"-h", "--help", "-sc"}.intersection(rest):
            # first: a broken extension must not look like a damaged run
            importlib.import_module("resnext.registry").load_extensions()
        return importlib.import_module(f"resnext.cli.{verb}").main(rest)
    except UserError as error:
        return _report(verb, error, 2)
    except RunFailed as error:
        return _report(verb, error, error.exit_code)
    except BrokenPipeError:  # `resnext recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _report(verb, describe_os_error(error), 1 if verb == "fit" else 2)  # 1: SLURM or torchrun tries again
    except Paused:
        return 0
    except Interrupted as error:
        return 128 + error.signum
    except KeyboardInterrupt:
        return _report(verb, "interrupted", 128 + signal.SIGINT)


def _report(verb: str, error: object, code: int) -> int:
    if str(error):
        print(f"resnext {verb}: {error}", file=sys.stderr)
    return code


def _help() -> str:
    lines = [f"  {verb:10}{summary}" for verb, summary in VERBS.items()]
    more = "`resnext VERB --help` explains the arguments."
    return "\n".join(["usage: resnext VERB [ARGUMENTS]", "", *lines, "", more])


def _complete(arguments: list[str]) -> list[str] | None:
    """The arguments for Hydra's completion; None if there is nothing more to do.

    The shell calls `resnext -sc query=bash` with the whole line in COMP_LINE. Verbs and runs are completed here. Hydra
    completes the words after `train`, `slurm` and `recipes NAME`, from a line without the verb and NAME.
    """
    command, _, rest = os.environ["COMP_LINE"].partition(" ")
    verb, space, words = rest.lstrip().partition(" ")
    if not space:
        print(" ".join(VERBS))
        return None
    if verb in ("resume", "status", "report", "evaluate", "average", "compare"):
        print(" ".join(sorted(str(path.parent) for path in Path("runs").glob("[!.]*/config.yaml"))))
        return None
    if verb == "recipes":
        _, space, words = words.lstrip().partition(" ")
    if words.split()[-1:] in (["--config-dir"], ["-cd"]):  # bash completes the folder
        return None
    os.environ["COMP_LINE"] = f"{command} {words.lstrip()}"
    return ["train", *arguments] if space and verb in ("train", "check", "slurm", "recipes") else None


if __name__ == "__main__":
    main()
