"""Writes data sets: ImageNet from its archives, CIFAR, packed shards.

Not here: reading data sets (data/). No training imports this package.
"""
