"""Reports on finished runs: the comparison of two runs.

Not here: what a training prints while it runs (training/messages.py).
"""
