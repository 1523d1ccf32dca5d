"""How the process treats memory that it has freed, and how much a step of work takes."""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

# mallopt's parameters, from glibc's malloc.h, and sizes that no tensor reaches.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next step instead of giving it back to the system.

    A training step frees its activations and asks for as much again in the next one. By default large blocks are mapped
    anew each time, page by page and cleared; with the student's activations waiting for backward while the teacher runs,
    that took an eighth of a distillation step on a CPU (yolov5n, 256 px). The process then holds its peak until it ends.

    Returns:
        Whether it worked; False where the C library is not glibc.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that there was no memory left: Python's own, a GPU's, or that of torch on the CPU."""
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("not enough memory", "can't allocate memory"))
    )


def peak_memory(step: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes of tensors that were allocated at a time during a step, beyond those that were there before.

    What the step gives back that was there before lowers it: free that first.

    Args:
        step: Is called once.
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
