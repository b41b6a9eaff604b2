"""What writes data sets: ImageNet from its archives, CIFAR, packed shards.

Not here: what reads them (data/). No training imports this package.
"""
