"""Scenarios for jobs. Each is a function of the folder that its job runs in. They run at the same time on a few nodes.

Nodes 1 and 2 are for all scenarios. A job of a higher partition preempts nodes 3 and 4. One of nodes 5, 6, 7 crashes.
"""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from resnext.launch.slurm import TEMPLATE
from slurm.cluster import Cluster, output, run
from slurm.job import HOOKS, PATIENCE, STEPS, TINY, Job, resnext, wait_until

EVERYONE, PREEMPTED, CRASHING, SURE = (f'slurm.exclude="node[{each}]"' for each in ("3-7", "1-2,5-7", "1-4", "5-7"))


def undisturbed(lab: Path, cluster: Cluster) -> Job:
    """2 nodes × 1 task: the reference run for most scenarios."""
    (lab / "digests-2").mkdir()
    job = Job(lab, "undisturbed", EVERYONE, DIGESTS=str(lab / "digests-2"))
    job.assert_finished(restarts=0)
    assert_equal_on_all_ranks(lab / "digests-2", 2)
    assert job.info["starts"][0]["world_size"] == 2
    assert f"slurm     job {job.id}, restart 0, on node[1-2], from step 0" in job.log
    return job


def two_tasks_a_node(lab: Path, cluster: Cluster) -> Job:
    (lab / "digests-4").mkdir()
    job = Job(lab, "four", EVERYONE, "logger=wandb", tasks=2, DIGESTS=str(lab / "digests-4"))
    job.assert_finished(restarts=0)
    assert_equal_on_all_ranks(lab / "digests-4", 4)
    assert job.info["starts"][0]["world_size"] == 4
    assert len(list((job.run / "wandb").glob("offline-run-*"))) == 1
    return job


def two_tasks_a_node_disturbed(lab: Path, cluster: Cluster) -> Job:
    """One of the four ranks is lost, and then the job is requeued."""
    job = Job(lab, "four-disturbed", EVERYONE, "checkpoint.every_steps=4", tasks=2, SLOW_STEP="0.2")
    job.wait_for_steps(10)
    job.kill_rank(1)
    wait_until(lambda: "restart 1, on" in job.log, "second start", job)
    job.requeue()
    job.assert_finished(restarts=2)
    assert {start["world_size"] for start in job.info["starts"]} == {4}
    return job


def preemption(lab: Path, cluster: Cluster) -> Job:
    """A job of a higher partition preempts this job, with GraceTime."""
    job = Job(lab, "preempted", PREEMPTED, SLOW_STEP="0.2")
    job.wait_for_steps(5)
    run("sbatch", "--partition=high", "--nodelist=node[3-4]", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    job.assert_finished()
    assert job.history == ["0 start on node[3-4]", "0 stop preempted", "1 start on node[3-4]", "1 stop finished"]
    return job


def time_limit(lab: Path, cluster: Cluster) -> Job:
    """SLURM itself sends USR1, 95 to 120 s after the start. On a slow machine, a start takes a minute."""
    job = Job(lab, "limited", EVERYONE, "slurm.time=3:00", "slurm.signal_seconds_before_end=60", SLOW_STEP="2.5")
    job.assert_finished()
    assert job.history[1] == "0 stop time limit near"
    return job


def no_time_to_save(lab: Path, cluster: Cluster) -> Job:
    """A step takes longer than the time to save. SLURM ends the job as TIMEOUT, and the job is requeued."""
    options = ("checkpoint.every_steps=4", "slurm.time=2:00", "slurm.signal_seconds_before_end=1")
    job = Job(lab, "late", EVERYONE, *options, PAUSE="step 10:1:300")
    job.assert_finished()
    assert "the time limit is reached" in job.log
    return job


def two_requeues(lab: Path, cluster: Cluster) -> Job:
    """The second start has another step number, so that a late kill of the first start's step does not reach it."""
    job = Job(lab, "requeued", EVERYONE, SLOW_STEP="0.2")
    job.wait_for_steps(5)
    job.requeue()
    wait_until(lambda: "restart 1, on" in job.log, "second start", job)
    assert f"StepId={job.id}.1 " in output("scontrol", "show", "step", job.id)
    first = job.steps
    assert 5 <= first < STEPS
    job.requeue()
    job.assert_finished(restarts=2)
    return job


def late_term(lab: Path, cluster: Cluster) -> Job:
    """The ranks get SIGTERM and the job stays RUNNING, as by SLURM's late request to end the start before."""
    job = Job(lab, "unlucky", EVERYONE, SLOW_STEP="0.2")
    job.wait_for_steps(5)
    job.signal("TERM")
    job.assert_finished()
    assert job.history[1] == "0 crash SIGTERM, although SLURM does not end the job"
    assert job.info["starts"][1]["from_step"] >= 5
    return job


def one_rank_waits(lab: Path, cluster: Cluster) -> Job:
    """The signal comes while rank 0 waits in a collective and rank 1 sleeps in its step."""
    return stop_and_resume(lab, "waiting", "step 12:1:4", "USR1")


def import_phase(lab: Path, cluster: Cluster) -> Job:
    """Nothing is saved, so this counts as a crash: a job that never gets further would be requeued forever."""
    return stop_and_resume(lab, "importing", "import:*:4", "USR2", saved=False)


def validation(lab: Path, cluster: Cluster) -> Job:
    return stop_and_resume(lab, "validating", "validation:*:4", "USR1")


def after_the_last_step(lab: Path, cluster: Cluster) -> Job:
    """The finished job is not started again."""
    job = Job(lab, "ending", EVERYONE, PAUSE="end:0:4")
    job.wait_for_pause()
    job.signal("USR1")
    job.assert_finished(restarts=0)
    return job


def cancelled(lab: Path, cluster: Cluster) -> Job:
    job = Job(lab, "cancelled", EVERYONE, SLOW_STEP="0.3")
    job.wait_for_steps(5)
    job.cancel()
    assert_stays_cancelled(job)
    result = resnext(lab, "status", "cancelled")
    assert "state     interrupted" in result.stdout
    return job


def cancelled_in_the_grace(lab: Path, cluster: Cluster) -> Job:
    """The job gets the signal for its time limit, and is cancelled before the ranks agree to leave."""
    job = Job(lab, "regretted", EVERYONE, PAUSE="step 12:1:6")
    job.wait_for_pause()
    job.signal("USR1")
    time.sleep(1)
    job.cancel()
    time.sleep(1)
    job.cancel()
    assert_stays_cancelled(job)
    return job


def killed_rank(lab: Path, cluster: Cluster) -> Job:
    """Kills the rank that does not save; `killed_too_often` kills the other rank."""
    job = Job(lab, "killed", EVERYONE, "checkpoint.every_steps=4", SLOW_STEP="0.2")
    job.wait_for_steps(10)
    job.kill_rank(1)
    job.assert_finished()
    assert job.history[1].startswith("0 crash exit code")
    assert job.info["starts"][1]["from_step"] >= 8
    return job


def killed_too_often(lab: Path, cluster: Cluster) -> Job:
    """With slurm.max_requeues=1, the job is requeued after the first crash and ends with the second's exit code."""
    job = Job(lab, "doomed", EVERYONE, "checkpoint.every_steps=4", "slurm.max_requeues=1", PAUSE="step 10:1:60")
    job.wait_for_pause()
    job.kill_rank(0)
    wait_until(lambda: "restart 1, on" in job.log, "second start", job)
    job.kill_rank(0)
    final = job.wait_for("FAILED", "COMPLETED")
    assert final["JobState"] == "FAILED", job.log
    assert final["Restarts"] == "1"
    assert final["ExitCode"] in ("137:0", "1:0")
    assert "crash 2: not requeued (slurm.max_requeues=1)" in job.log
    return job


def crashed_node(lab: Path, cluster: Cluster) -> Job:
    """The node of rank 0 and the batch script crashes. The job continues on other nodes when the old lock is stale."""
    job = Job(lab, "crashed", CRASHING, "checkpoint.every_steps=4", SLOW_STEP="0.4")
    job.wait_for_steps(10)
    first = job.nodes[0]
    cluster.crash_node(first)
    job.assert_finished()
    assert job.history[:2] == ["0 start on node[5-6]", "1 start on node[6-7]"]
    assert job.info["starts"][1]["from_step"] >= 8
    return job


def template_by_hand(lab: Path, cluster: Cluster) -> None:
    """Submits scripts/train.sbatch itself, in a folder that has .venv, for a run that exists."""
    (lab / ".venv/bin").mkdir(parents=True)
    (lab / ".venv/bin/python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (lab / ".venv/bin/python").chmod(0o755)
    made = resnext(
        lab, "slurm", *TINY, "run=by-hand", "slurm.tasks_per_node=2", "slurm.dry_run=true", "recipe.epochs=1"
    )
    assert made.returncode == 0, made.stderr
    options = ["--nodes=1", "--ntasks-per-node=2", "--exclude=node[3-7]"]
    run("sbatch", *options, str(TEMPLATE), "runs/by-hand", cwd=lab)
    wait_for_status(lab, "by-hand", "finished")
    assert json.loads((lab / "runs/by-hand/run.json").read_text())["starts"][0]["world_size"] == 2


def sweep_of_jobs(lab: Path, cluster: Cluster) -> None:
    """Each run has a job. One job is cancelled, and the same command resubmits only this one."""
    options = (*TINY, EVERYONE, "-m", "run=swept", "seed=1,2", "slurm.tasks_per_node=2", "recipe.epochs=1")
    first = resnext(lab, "slurm", *options)
    jobs = re.findall(r"submitted job (\d+)", first.stdout)
    assert len(jobs) == 2, first.stderr
    run("scancel", jobs[1])
    wait_for_status(lab, "swept-0", "finished")
    again = resnext(lab, "slurm", *options)
    assert "runs/swept-0 is finished: not submitted" in again.stdout, again.stderr
    assert again.stdout.count("submitted job") == 1
    wait_for_status(lab, "swept-1", "finished")


def sweep_by_submitit(lab: Path, cluster: Cluster) -> Path:
    """hydra-submitit-launcher: one job gets USR2 and saves, the other is requeued; both continue their runs."""
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=9")
    where = '+hydra.launcher.exclude="node[3-7]"'
    command = [sys.executable, "-m", "resnext", "train", *TINY, *launcher, where, "-m", "run=submitted", "seed=0,1"]
    environment = {"RESNEXT_DATA": str(lab / "data"), "PYTHONPATH": str(HOOKS), "SLOW_STEP": "0.3"}
    with open(lab / "submitit.log", "w") as log:
        process = subprocess.Popen(command, cwd=lab, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        for number, act in enumerate((["scancel", "--signal=USR2"], ["scontrol", "requeue"])):
            wait_for_status(lab, f"submitted-{number}", "running")
            folder = next(lab.glob(f"runs/.submitit/*_{number}"))
            time.sleep(3)
            run(*act, folder.name)
        for number in range(2):
            wait_for_status(lab, f"submitted-{number}", "finished")
            assert len(json.loads((lab / f"runs/submitted-{number}/run.json").read_text())["starts"]) == 2
        alone = resnext(lab, "train", *TINY, "run=alone", "seed=0", OMP_NUM_THREADS="1")
        assert alone.returncode == 0, alone.stderr
    finally:
        process.terminate()  # it would query sacct for another minute
        process.wait()
    return lab / "runs/submitted-0"


def sweep_of_trials(lab: Path, cluster: Cluster) -> Path:
    """4 trials on 2 nodes: one is preempted, and the process of the sweep is killed. Each ends like a run alone."""
    values = "recipe.optimizer.lr=0.02,0.05,0.1,0.2"
    where = (PREEMPTED, "sweep.launcher=slurm", "sweep.parallel=2", "slurm.tasks_per_node=1")
    hooks = {"PYTHONPATH": str(HOOKS), "SLOW_STEP": "0.2"}
    first = resnext(lab, "sweep", *TINY, "run=trials", values, *where, **hooks)
    assert "2 jobs in the queue" in first.stdout, first.stderr
    wait_for_status(lab, "trials-0", "running")
    job = (lab / "runs/trials-0/jobs.txt").read_text().split()[0]
    node = re.search(r" NodeList=(\S+)", output("scontrol", "show", "job", "--oneliner", job))[1]
    command = [sys.executable, "-m", "resnext", "sweep", "trials", "--wait"]
    environment = {**os.environ, **hooks, "RESNEXT_DATA": str(lab / "data")}
    with open(lab / "trials.log", "w") as log:
        controller = subprocess.Popen(command, cwd=lab, env=environment, stdout=log, stderr=log)
    run("sbatch", "--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    wait_for_status(lab, "trials-2", "running")
    controller.kill()
    controller.wait()
    last = resnext(lab, "sweep", "trials", "--wait", **hooks)
    assert "4 trials: 4 complete" in last.stdout, last.stdout + last.stderr
    assert "preempted" in (lab / "runs/trials-0/jobs.txt").read_text()
    starts = json.loads((lab / "runs/trials-0/run.json").read_text())["starts"]
    assert len(starts) >= 2  # another scenario may preempt it too
    alone = resnext(lab, "train", *TINY, "-m", "run=trial-alone", values, OMP_NUM_THREADS="1")
    assert alone.returncode == 0, alone.stderr
    return lab / "runs"


def users_mistake(lab: Path, cluster: Cluster) -> Job:
    """The nodes find the mistake. The error is printed once, and the job is not requeued."""
    job = Job(lab, "mistaken", EVERYONE, "recipe.optimizer.name=sgdd")
    final = job.wait_for("FAILED", "COMPLETED")
    assert (final["JobState"], final["ExitCode"], final["Restarts"]) == ("FAILED", "2:0", "0"), job.log
    assert "sgdd" in job.log
    assert job.history[-1] == "0 stop exit code 2"
    return job


def dry_run_for_gpus(lab: Path, cluster: Cluster) -> None:
    """4 nodes × 8 GPUs: sbatch accepts the script, and 32 ranks get their variables; a script replaces python."""
    printer = lab / "print-rank"
    variables = ("PROCID", "LOCALID", "NODEID", "STEP_NUM_TASKS", "STEP_NUM_NODES", "NTASKS_PER_NODE", "GPUS_ON_NODE")
    printer.write_text(f"#!/bin/bash\necho {','.join(f'$SLURM_{name}' for name in variables)} >>{lab}/ranks\n")
    printer.chmod(0o755)
    options = (SURE, "slurm.nodes=4", "slurm.gpus_per_node=8", "slurm.time=24:00:00", "slurm.dry_run=true")
    result = resnext(lab, "slurm", "run=dry", "recipe.batch_size=32", f'slurm.prologue=["python={printer}"]', *options)
    assert result.returncode == 0, result.stderr
    script = lab / "runs/dry/job.sbatch"
    assert script.read_text() in result.stdout
    tested = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True)
    assert "using 32 processors on nodes" in tested.stderr, tested.stderr
    job = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True).stdout.strip()
    deadline = time.monotonic() + 120
    while "JobState=COMPLETED" not in output("scontrol", "show", "job", job):
        assert time.monotonic() < deadline, (lab / f"runs/dry/slurm-{job}.out").read_text()
        time.sleep(0.3)
    ranks = sorted(csv.reader((lab / "ranks").read_text().splitlines()), key=lambda row: int(row[0]))
    assert ranks == [[str(rank), str(rank % 8), str(rank // 8), "32", "4", "8", "8"] for rank in range(32)]


def refused_while_queued(lab: Path, cluster: Cluster) -> None:
    job = Job(lab, "queued", EVERYONE, 'slurm.sbatch=["--begin=now+1hour"]')
    again = resnext(lab, "slurm", "run=queued", *(f"slurm.{each}" for each in ("nodes=2", "tasks_per_node=1")))
    assert again.returncode == 2
    assert f"is already in the queue: job {job.id} is PENDING; wait, or run `scancel {job.id}`" in again.stderr
    assert "queued" in resnext(lab, "status").stdout
    job.cancel()
    job.wait_for("CANCELLED")


def stop_and_resume(lab: Path, name: str, pause: str, signum: str, *, saved: bool = True) -> Job:
    """Sends a signal during a pause: the job saves and leaves, is requeued, and resumes."""
    job = Job(lab, name, EVERYONE, PAUSE=pause)
    job.wait_for_pause()
    job.signal(signum)
    job.assert_finished()
    ended = "0 stop time limit near" if saved else "0 crash time limit near, and nothing was saved in this start"
    assert job.history[1] == ended
    assert (job.info["starts"][-1]["from_step"] > 0) == saved
    return job


def wait_for_status(lab: Path, name: str, status: str) -> None:
    """Waits until summary.json of a run has this status."""
    path, deadline = lab / "runs" / name / "summary.json", time.monotonic() + PATIENCE
    while not path.exists() or json.loads(path.read_text())["status"] != status:
        assert time.monotonic() < deadline, f"{name} is not {status}"
        time.sleep(0.2)


def assert_stays_cancelled(job: Job) -> None:
    job.wait_for("CANCELLED")
    time.sleep(8)  # cred_expire, after which a requeued job would start
    assert job.show()["JobState"] == "CANCELLED", job.log
    assert job.summary["status"] in ("interrupted", "preempted")
    assert (job.run / "checkpoints/last.ckpt").exists()
    assert job.summary["steps"] == job.steps >= 5


def assert_equal_on_all_ranks(folder: Path, ranks: int) -> None:
    assert len(os.listdir(folder)) == 2 * ranks
    for name, lines in (("grads", STEPS), ("weights", 3)):
        first, *others = [(folder / f"{name}-{rank}").read_text() for rank in range(ranks)]
        assert len(set(first.splitlines())) == lines
        assert all(other == first for other in others)
