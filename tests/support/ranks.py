"""Ranks that train several runs, one after another. They are forked from one process, which imports torch once.

Each line of stdin is a request for `world` ranks. The answer is a line of stdout: how the fit ended on each rank.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import IO, Any

warnings.simplefilter("error")  # before all imports, as in the tests

from resnext.data.dataset import TrainImages  # noqa: E402
from resnext.errors import Interrupted  # noqa: E402
from resnext.run.directory import Run  # noqa: E402
from resnext.training.fit import fit  # noqa: E402
from support.stopping import Stopper, recorded, with_callbacks  # noqa: E402

Rank = tuple[IO[str], IO[str]]  # its requests and its answers


def main(count: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of a fit is not an answer
    ranks: list[Rank] = []
    for rank in range(count):
        ranks.append(fork_rank(rank, ranks))
    for line in sys.stdin:
        asked = ranks[: json.loads(line)["world"]]
        for requests, _ in asked:
            print(line, end="", file=requests, flush=True)
        print(json.dumps([answer.readline().strip() for _, answer in asked]), file=answers, flush=True)
    for rank in ranks:
        for pipe in rank:
            pipe.close()
    for _ in ranks:
        assert os.wait()[1] == 0


def fork_rank(rank: int, others: list[Rank]) -> Rank:
    (request_end, requests), (answers, answer_end) = os.pipe(), os.pipe()
    if os.fork():
        os.close(request_end)
        os.close(answer_end)
        return os.fdopen(requests, "w"), os.fdopen(answers)
    os.close(requests)
    os.close(answers)
    for other in others:
        for pipe in other:
            pipe.close()  # with an open copy, another rank would not see the end of its requests
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with os.fdopen(request_end) as requests_here, os.fdopen(answer_end, "w") as answers_here:
        serve(rank, requests_here, answers_here)
    os._exit(0)


def serve(rank: int, requests: IO[str], answers: IO[str]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    os.environ |= {"TORCHELASTIC_RUN_ID": "ranks", "MASTER_ADDR": "127.0.0.1"}
    for line in requests:
        request = json.loads(line)
        os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(request["world"]))
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
