"""Many runs as one: a search space, Optuna's samplers and pruners, the runs' places, and a table at any time.

    runs/NAME/
      sweep.yaml        the settings, frozen
      optuna.journal    the trials: values, results of each rung, promotions; the only state of a sweep
      trials.csv        a row for each trial, written anew after each change
      jobs.csv          a row for each process or SLURM job that ended: from when to when it had its place
      output/           what the command of each run printed
      report.html       a page of all runs
    runs/NAME-N/        the run of trial N; with several seeds, runs/NAME-N-seedS

A run is trained by the same command as a run alone, and reaches the next rung by trainer.pause_after_epochs. So the
state of a sweep follows from its journal and its run directories, whenever its process was killed.
"""
