"""Lightning callbacks: what happens at a step, an epoch, a validation or a save.

Not here: where metrics are written (loggers/), and the loss and the optimizer (task/).
"""
