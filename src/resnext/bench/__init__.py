"""Measurements of the data path and the index, beside torchvision's and timm's own code.

Nothing else imports this package. Timings that a training logs are callbacks/throughput.py.
"""
