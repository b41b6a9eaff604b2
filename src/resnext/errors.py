"""The three ways a command ends early; `resnext.__main__` maps each to its exit code."""


class UserError(ValueError):
    """A mistake that the user can mend: one line that says what was found and what to do. Exit code 2."""


class RunFailed(RuntimeError):
    """A training that broke: one line, with the traceback already in the run's log.txt. Exit code 1."""


class Interrupted(BaseException):
    """A signal asked the run to stop, and it did so at a safe point. Exit code 128 + signum.

    Like KeyboardInterrupt it is no Exception: a library that goes on after errors does not go on after this.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
