"""The mathematics of a training step: loss, mixing, optimization, accuracy, teacher.

Not here: when a step is taken, saved or logged (training/, callbacks/, loggers/).
"""
