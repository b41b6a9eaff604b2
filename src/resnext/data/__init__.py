"""From images on disk to batches: index, decoding, augmentation, order.

Not here: what writes datasets (prepare/), and mixing, which needs a whole batch on the device (task/mixing.py).
"""
