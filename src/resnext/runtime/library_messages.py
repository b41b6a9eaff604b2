"""Recognises errors of libraries by their text, if no type and no field identifies them.

tests/runtime/test_library_messages.py provokes each of these messages in the installed version of each library.
"""

import re

# torch 2.14.1. gloo raises a plain RuntimeError: "[/__w/pytorch/…/gloo/transport/tcp/pair.cc:545] Read error …", or
# "[…/unbound_buffer.cc:78] Timed out waiting 300ms for recv operation to complete"; then "Application timeout …".
GLOO = re.compile(r"\[(?:enforce fail at )?\S*/gloo/\S+\.(?:cc|h):\d+\]|Application timeout caused pair closure")
# torch 2.14.1. gloo: "Timed out"; a store: "Wait timeout", "The client socket has timed out"; NCCL: "operation timeout"
TIMEOUT = re.compile(r"timed out|timeout", re.IGNORECASE)

# simplejpeg 1.9.0. Every warning and error of libjpeg is a ValueError; these two mean that pixels are wrong.
JPEG_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end of JPEG file")
EXTRANEOUS_BYTES = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def is_gloo_failure(error: Exception) -> bool:
    """Whether a gloo collective lost a process, or waited for it too long."""
    return isinstance(error, RuntimeError) and GLOO.search(str(error)) is not None


def is_timeout(error: Exception) -> bool:
    """Whether `error`, of a collective or a store, reports a time-out."""
    return TIMEOUT.search(str(error)) is not None


def is_jpeg_damage(message: str) -> bool:
    """Whether pixels are wrong; False for a coding that libjpeg cannot decode at all."""
    return JPEG_DAMAGE.search(message) is not None


def count_extraneous_bytes(message: str) -> int | None:
    """How many bytes libjpeg skipped before the end marker, None if `message` does not say so."""
    found = EXTRANEOUS_BYTES.search(message)
    return None if found is None else int(found[1])
