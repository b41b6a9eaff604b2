"""Tolerant: a logger whose error does not end the training."""

import logging
from collections.abc import Callable
from typing import Any

from resnext.config.redaction import redact_urls
from resnext.errors import describe_error

log = logging.getLogger(__name__)


class Tolerant:
    """Comes before a Lightning logger in the bases of a class. The first error is a warning, and stops the logger.

    A later start sends what is missing.
    """

    stopped = False

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.attempt(super().log_metrics, metrics, step)  # pyright: ignore[reportAttributeAccessIssue]

    def save(self) -> None:
        self.attempt(super().save)  # pyright: ignore[reportAttributeAccessIssue]

    def finalize(self, status: str = "success") -> None:
        self.attempt(super().finalize, status)  # pyright: ignore[reportAttributeAccessIssue]

    def attempt(self, act: Callable[..., None], *arguments: Any) -> None:
        if self.stopped:
            return
        try:
            act(*arguments)
        except Exception as error:  # any error of the library: a log must not end a training
            self.stopped = True
            cause = error.__context__ or error  # Lightning replaces the library's message
            reason = redact_urls(describe_error(cause))[:200]
            log.warning("%s has failed: %s; the training goes on without it", type(self).__name__, reason)
