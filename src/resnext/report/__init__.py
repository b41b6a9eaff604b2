"""Reports on runs: an HTML page of one or several runs, and whether two runs are identical.

Not here: what a training prints while it runs (training/messages.py).
"""
