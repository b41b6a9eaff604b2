"""A run on disk: its directory, identity, lock, provenance and metrics. Imports no torch.

Not here: the content of checkpoint files (runtime/checkpoint.py), and training itself (training/).
"""
