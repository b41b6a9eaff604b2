"""The three ways in which a command ends early; `resnext.__main__` maps each to its exit code."""


class UserError(ValueError):
    """A mistake that the user can mend: one line that says what was found and what to do. Exit code 2."""


class RunFailed(RuntimeError):
    """A training that broke: one line, or none where a rank has said it; the traceback is in the run's log.txt."""

    def __init__(self, message: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """A signal asked the run to stop, and it did so at a safe point. Exit code 128 + signum.

    Like KeyboardInterrupt it is no Exception: a library that goes on after errors does not go on after this.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def first_cause(error: UserError) -> str:
    """Its one line: an error that crossed from a loader process carries that process's traceback in its message."""
    return str(error).strip().splitlines()[-1].removeprefix("resnext.errors.UserError: ")


def describe_os_error(error: OSError) -> str:
    """A file or folder that cannot be read or made, and why."""
    return f"{error.filename}: {error.strerror}" if error.filename else f"{type(error).__name__}: {error}"
