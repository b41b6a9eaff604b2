"""Lightning loggers: where the metrics of a training are written.

Not here: how metrics are read back (run/metrics.py), and lines of text for a person (training/messages.py).
"""
