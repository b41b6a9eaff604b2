"""The exceptions that end a command early. `resnext.__main__` maps each to an exit code."""

import errno

NOT_WRITABLE = "make it writable, work in another folder, or replace it with a link to a writable folder"
OS_REMEDIES = {
    errno.EACCES: NOT_WRITABLE,
    errno.EPERM: NOT_WRITABLE,
    errno.EROFS: NOT_WRITABLE,
    errno.EEXIST: "a folder of this name is needed, but this is not a folder: move it away",
    errno.ENOTDIR: "a part of this path is a file instead of a folder: move that file away",
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
}


class UserError(ValueError):
    """A mistake that the user can correct. The message is one line: what was found and what to do. Exit code 2."""

    def __str__(self) -> str:
        return _one_line(super().__str__())


class RunFailed(RuntimeError):
    """The training failed. The traceback is in the run's log.txt.

    The message is one line, or empty if a rank has already printed it.
    """

    def __init__(self, message: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __str__(self) -> str:
        return _one_line(super().__str__())


class Interrupted(BaseException):
    """A signal asked the run to stop, and the run stopped at a safe point. Exit code 128 + signum.

    A BaseException, like KeyboardInterrupt: a library that catches every Exception does not catch it.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Paused(BaseException):
    """The training has reached trainer.pause_after_epochs, and its state is saved. Exit code 0."""


def picklable(error: Exception, part: str) -> Exception:
    """The same error for another process: a subclass may have arguments that cannot be pickled. `part` had it."""
    if isinstance(error, UserError):
        return UserError(str(error))
    return RunFailed(str(error) if isinstance(error, RunFailed) else f"{part} failed: {describe_error(error)}")


def first_line(error: Exception) -> str:
    """The first line of a library's message; the type of the error if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe_error(error: BaseException) -> str:
    """A library's error in one line: its type and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])


def describe_os_error(error: OSError) -> str:
    """The file or folder that cannot be read or created, the reason, and the remedy if one is known."""
    if not error.filename:
        return f"{type(error).__name__}: {error}"
    remedy = OS_REMEDIES.get(error.errno or 0)
    return f"{error.filename}: {error.strerror}" + (f"; {remedy}" if remedy else "")


def _one_line(text: str) -> str:
    """Joins the lines of `text`: a message may quote a library's message of several lines."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
