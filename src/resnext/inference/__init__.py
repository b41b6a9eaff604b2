"""From a finished run to numbers and files: evaluation, prediction, export, average.

Not here: the validation during a training (task/, callbacks/), and the comparison of two runs (report/).
"""
