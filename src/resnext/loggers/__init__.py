"""Lightning loggers: they write the metrics of a training.

Not here: reading metrics back (run/metrics.py), and text for the user (training/messages.py).
"""
