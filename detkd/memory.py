"""How the process treats memory that it has freed, and how much a step of work takes."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from pathlib import Path
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


def available_memory(device: str = "cpu") -> int:
    """Bytes that this process can still take: of the GPU's memory, or what the system, its container and its limits leave.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    left = [_system_memory()]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _numbers(Path("/proc/self/statm"))
    if limit != resource.RLIM_INFINITY and pages:
        left.append(limit - pages[0] * os.sysconf("SC_PAGE_SIZE"))
    container = [_numbers(Path("/sys/fs/cgroup", name)) for name in ("memory.max", "memory.current")]
    if all(container):
        left.append(container[0][0] - container[1][0] + _cached_files())
    return max(0, min(left))


def _cached_files() -> int:
    """What a container's memory holds of files, and gives up when it is asked for."""
    for line in _lines(Path("/sys/fs/cgroup/memory.stat")):
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _system_memory() -> int:
    """What the system has to give; where it does not say what is free, all that it has."""
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 2**10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _numbers(path: Path) -> list[int]:
    """The numbers in the first line of a file; none where it has words, as ``max`` for no limit, or is not there."""
    words = next(iter(_lines(path)), "").split()
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
