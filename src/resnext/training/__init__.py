"""A training, from its run directory to its result: plan, checks before the start, trainer, messages.

Not here: what happens at a step or a save (callbacks/), and how many processes train (launch/).
"""
