"""Starts the processes that train a run: on this machine, or as a SLURM job.

Not here: the training in each of these processes (training/).
"""
