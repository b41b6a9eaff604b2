"""How many processes train a run, and where: on this machine, or as a SLURM job.

Not here: what one of these processes does (training/).
"""
