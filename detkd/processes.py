"""The processes that train together, and those that must not."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from detkd.errors import ConfigError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PARENT_DEATH_SIGNAL = 1  # of prctl, from Linux' headers


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of several; the others neither write a run's files nor print.

    Known from the environment, as torchrun and Lightning's own launcher leave it: long before the processes meet.
    """
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a run's folder; the system lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: If another process is at work in it, or it cannot be written.
    """
    if not is_first_process():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("ab")
    except OSError as error:
        raise ConfigError(f"output: expected a folder that can be written, but: {one_line(error)}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ConfigError(
                f"name: expected a run that no other process is at work on, but one is in {folder}. Wait for it, or choose "
                "another name."
            ) from error
        yield


def end_with_parent() -> None:
    """Be killed when the process that started this one is, so that nobody goes on in its place; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
