"""Networks, their initialisation, and pretrained weights.

Not here: the loss and the optimizer (task/), and the checkpoints of a run (runtime/checkpoint.py).
"""
