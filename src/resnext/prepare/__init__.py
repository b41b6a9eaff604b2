"""Writes datasets: ImageNet from its archives, CIFAR, packed shards.

Not here: reading datasets (data/). No training imports this package.
"""
