"""Do memory, time and the number of steps suffice."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from torch import nn

from detkd.doctor.findings import Finding, Kind, passed

if TYPE_CHECKING:
    from collections.abc import Sequence

MEMORY = Kind(
    "memory.short",
    "error",
    "a training step takes more memory than there is",
    "The batch, the pictures or the models are too large for this machine.",
    "Lower train.batch or train.imgsz; read the teacher from a cache (distill.teacher.cache).",
)
TIGHT = Kind(
    "memory.tight",
    "warning",
    "a training step takes most of the memory",
    "The batch, the pictures or the models are large for this machine, and validation needs room, too.",
    "Lower train.batch or train.imgsz; read the teacher from a cache (distill.teacher.cache).",
)
STEPS = Kind(
    "steps.few",
    "warning",
    "the optimizer makes too few steps",
    "Few pictures, few epochs, or gradients that are gathered over several batches. While the student still learns the "
    "task, every further loss just competes with it.",
    "More epochs or a smaller batch; set trainer.nbs to the batch (YOLO), or leave accumulate_grad_batches out.",
)
SMALL = Kind(
    "batch.small",
    "warning",
    "batch statistics are taken over few pictures",
    "The student has batch normalisation, and a batch has fewer pictures than give steady statistics.",
    "A larger train.batch; or gather gradients over batches and keep pretrained statistics.",
)
KINDS = (MEMORY, TIGHT, STEPS, SMALL)

FEW_STEPS = 500  # on bccd, students of 100 steps lost by distillation, and those of 520 were still rising
FEW_PICTURES = 4
FULL = 0.8  # of the memory
TRIAL = 4  # pictures of the batch on which memory is measured


def scaled_memory(measured: int, batch: int, wanted: int, parameters: int) -> int:
    """Bytes of a training step at another batch size.

    Activations grow with the batch; gradients and the optimizer's two moments of each parameter, in float32, do not.

    Args:
        measured: Bytes of a step.
        batch: Pictures of it.
        wanted: Pictures of the step asked for.
        parameters: Number of parameters that learn.
    """
    fixed = min(12 * parameters, measured)
    return fixed + math.ceil((measured - fixed) * wanted / batch)


def check_memory(needed: int, available: int) -> Finding:
    """Compare what a step takes with what there is, both in bytes."""
    detail = f"About {_size(needed)} of {_size(available)}."
    if needed > available:
        return MEMORY.found(detail)
    return (
        TIGHT.found(detail)
        if needed > FULL * available
        else passed("memory", f"A step takes {detail[0].lower()}{detail[1:]}")
    )


def count_steps(images: int, batch: int, epochs: int, gathered: int) -> int:
    """Steps of the optimizer in a run; the last batch of an epoch may be smaller.

    Args:
        images: Training images.
        batch: Of them in a batch.
        epochs: Length of the run.
        gathered: Batches whose gradients a step takes together.
    """
    return max(1, math.ceil(images / batch) * epochs // gathered)


def check_steps(steps: int, gathered: int) -> Finding:
    """Whether the run is long enough to show anything; see :func:`count_steps`."""
    detail = f"{steps} steps" + (f", each of the gradients of {gathered} batches." if gathered > 1 else ".")
    return STEPS.found(detail) if steps < FEW_STEPS else passed("steps", detail)


def check_batch(student: nn.Module, batch: int) -> list[Finding]:
    """Whether batch normalisation that trains sees enough pictures."""
    # Whatever mode they are in: a checkpoint comes in evaluation mode, and its trainer changes that.
    every = [layer for layer in student.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    norms = [layer for layer in every if layer.weight is None or layer.weight.requires_grad]
    if not norms or batch >= FEW_PICTURES:
        return []
    return [SMALL.found(f"{len(norms)} layers, {batch} in a batch.")]


def estimate_time(seconds: Sequence[float], batches: int) -> list[Finding]:
    """How long training takes.

    Args:
        seconds: Of some batches.
        batches: Of the run.
    """
    if not seconds:
        return []
    step = statistics.median(seconds)
    return [passed("time", f"{step:.2g} s a batch, {batches} batches: {_duration(step * batches)} without validation.")]


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
