"""Times and memory of one case, of all contestants in turns.

Contestants take turns by blocks of calls, not call by call. A call that follows another contestant's finds the caches full
of that one's intermediate results and the allocator without the memory that its own last call freed, whose pages the system
clears anew: it would time its predecessor as well. In training an op follows work that is the same whichever op it is. So a
block begins with calls that are not timed; rounds of blocks let a change of the machine's mood meet all contestants.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes into the table otherwise

import torch

from detkd.memory import peak_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from detkd.benchmarks.cases import Case, Loss

UNTIMED, TIMED = 2, 6  # calls of a block


@dataclass(frozen=True)
class Result:
    """Medians of one case; times in milliseconds, bandwidth in 10^9 bytes a second."""

    op: str
    label: str
    shape: tuple[int, ...]
    forward: dict[str, float]
    forward_backward: dict[str, float]
    gigabytes_per_second: float
    extra_memory: dict[str, float]  # peak during forward and backward, in sizes of the gradient


def measure(case: Case, dtype: torch.dtype, device: str, rounds: int) -> Result:
    """Time all contestants on one case, in so many rounds of one block each."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    gc.collect()
    student = torch.randn(case.shape, device=device).to(dtype).requires_grad_()
    teacher = torch.randn(case.shape, device=device).to(dtype)
    losses = {"detkd": case.fused, "eager": case.plain, "compile": torch.compile(case.plain, dynamic=False)}
    if device == "cuda" and case.liger is not None:
        losses["liger"] = case.liger

    def forward(loss: Loss) -> None:
        with torch.no_grad():
            loss(student, teacher)

    def both(loss: Loss) -> None:
        student.grad = None
        loss(student, teacher).backward()

    times = {step: _medians(losses, step, device, rounds) for step in (forward, both)}
    peaks = {}
    for name, loss in losses.items():
        student.grad = None  # or its end, within the step, would be taken for memory that the step gave back
        peaks[name] = peak_memory(partial(both, loss), device)
    floor = 3 * student.numel() * student.element_size()
    return Result(
        case.op,
        case.label,
        case.shape,
        times[forward],
        times[both],
        floor / times[both]["detkd"] / 1e6,
        {name: peak / (floor / 3) for name, peak in peaks.items()},
    )


def _medians(losses: dict[str, Loss], step: Callable[[Loss], None], device: str, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in losses}
    for _ in range(rounds):
        for name, loss in losses.items():
            times[name] += _block(partial(step, loss), device)
    return {name: statistics.median(values) for name, values in times.items()}


def _block(step: Callable[[], None], device: str) -> list[float]:
    """Milliseconds of each timed call."""
    for _ in range(UNTIMED):
        step()
    times = []
    for _ in range(TIMED):
        started = _now(device)
        step()
        times.append(1e3 * (_now(device) - started))
    return times


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def copy_bandwidth(device: str) -> float:
    """Return the bytes a second of a large copy, read and written ones together, in 10^9."""
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        started = _now(device)
        target.copy_(source)
        times.append(_now(device) - started)
    return 2 * source.numel() * 4 / statistics.median(times) / 1e9


def machine(device: str) -> str:
    """Return the name of the device."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
