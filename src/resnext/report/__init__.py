"""What one or several runs have to say when they are over: their comparison.

Not here: what a training prints while it runs (training/messages.py).
"""
