"""Ties a process to its parent: the process is killed when its parent ends for any reason. Linux only."""

import ctypes
import os
import signal

LAUNCHER = "RESNEXT_LAUNCHER"  # environment variable: the process id of launch/local.py
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_launcher() -> None:
    """Ties this rank to its launcher, but only under torchrun.

    srun ends its ranks itself, and a process started by hand may outlive its shell.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent(int(os.environ.get(LAUNCHER, os.getppid())))


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Asks the kernel to send this process a signal when its parent ends.

    SIGKILL also ends a process that hangs or is stopped.

    To the kernel, the parent is the thread that started this process. torchrun and DataLoader start processes from
    their main thread, which ends with its process.

    Args:
        parent: process id of the parent. If the parent has already ended, the signal comes immediately: the kernel
            only reports deaths that come after the request.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)
