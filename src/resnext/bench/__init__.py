"""Benchmarks of the data path, compared with torchvision's and timm's own code, and of the index.

Only cli/benchmark.py imports this package. callbacks/throughput.py measures the speed of a training.
"""
