"""Work in a process of its own that is killed at its n-th step on files."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# Of a server that has imported what takes long and has done nothing else: the process that runs the tests has threads by
# now, whose locks a copy of it would wait for.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["albumentations", "pytorch_lightning", "detkd.engines.run"])
FORK = multiprocessing.get_context("fork")  # for what cannot be sent to another process, and trains nothing
STEPS = ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod")  # names of Python's audit events


def attempt(work: Callable[[], object], folder: Path, moment: int | None = None) -> int | None:
    """Do some work in a process of its own.

    Args:
        work: What it does; it is sent there, so no lambda.
        folder: The files that count.
        moment: The step on these files at which the process kills itself; None lets it come to its end.

    Returns:
        How many steps the work took, where it came to its end; None where it was killed.
    """
    reader, writer = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=_run, args=(work, folder, moment, writer))
    process.start()
    writer.close()
    steps: int | None = None
    with contextlib.suppress(EOFError):
        steps = reader.recv()
    process.join()
    assert process.exitcode == (0 if steps is not None else -signal.SIGKILL), (process.exitcode, moment)
    return steps


def _run(work: Callable[[], object], folder: Path, moment: int | None, writer: Any) -> None:
    torch.set_num_threads(1)
    done, place = 0, str(folder)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done
        if event in STEPS and any(
            isinstance(one, str | os.PathLike) and os.fspath(one).startswith(place) for one in arguments
        ):
            done += 1
            if done == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with contextlib.redirect_stdout(io.StringIO()):
        work()
    writer.send(done)
