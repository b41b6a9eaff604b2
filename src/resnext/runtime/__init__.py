"""This process and its machine: device, world, signals, collectives, logs, checkpoint files.

Not here: anything about images, networks or losses.
"""
