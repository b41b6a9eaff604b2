"""The private attributes of Lightning that this code uses, and a check that they exist.

pyproject.toml pins the minor version for them. tests/runtime/test_lightning_private.py shows what each one does.
"""

from operator import attrgetter

import lightning
from lightning.pytorch import Trainer

from resnext.errors import UserError

RELIED_ON = (
    "_signal_connector.register_signal_handlers",
    "fit_loop.epoch_loop._broadcast_sigterm_tensor",
    "fit_loop.epoch_loop.val_loop.run",  # LastCheckpoint validates with it
)


def silence_signals(trainer: Trainer) -> None:
    """Removes Lightning's signal handlers, which call collectives, and its broadcast before every batch.

    The broadcast tells the ranks whether a handler ran, and waits for the GPU each time. StopRequest and LastCheckpoint
    do this work instead.

    Raises:
        UserError: if this version of Lightning does not have all of RELIED_ON.
    """
    _check(trainer)
    trainer._signal_connector.register_signal_handlers = lambda: None
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def _check(trainer: Trainer) -> None:
    """Without this check, an assignment to a renamed method would have no effect and raise no error."""
    for name in RELIED_ON:
        try:
            attrgetter(name)(trainer)
        except AttributeError as error:
            raise UserError(
                f"lightning {lightning.__version__} has no Trainer.{name}, which this code relies on: "
                "install the versions of requirements.lock"
            ) from error
