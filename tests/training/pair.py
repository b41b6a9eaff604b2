"""One of two ranks that stand ready: fits one run after another, so that imports are paid once.

Each line of stdin is a request, the answer a line of stdout: how the fit ended.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("error")  # before anything is imported, as in the tests

from stopping import Stopper, recorded, with_callbacks  # noqa: E402

from resnext.data.datamodule import TrainImages  # noqa: E402
from resnext.errors import Interrupted  # noqa: E402
from resnext.training.fit import fit  # noqa: E402
from resnext.training.run import Run  # noqa: E402


def main(rank: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "pair", "MASTER_ADDR": "127.0.0.1"}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a fit prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        os.environ["MASTER_PORT"] = str(request["port"])
        os.chdir(request["folder"])
        print(ending(rank, **request), file=answers, flush=True)


def ending(rank: int, run: str, stop: tuple[str, int] | None, stopped_rank: int, **_rest: Any) -> str:
    callbacks = [Stopper(*stop)] if stop and rank == stopped_rank else []
    try:
        with with_callbacks(*callbacks), recorded(TrainImages, Path(f"seen-{rank}.txt")):
            fit(Run.open(Path(run)))
    except Interrupted:
        return "interrupted"
    except BaseException as error:
        return repr(error)
    return "finished"


if __name__ == "__main__":
    main(int(sys.argv[1]))
