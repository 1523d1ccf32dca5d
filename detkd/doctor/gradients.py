"""Does each term's gradient reach the student, in proportion to the task loss's, and do they pull the same way."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from detkd.doctor.findings import Finding, Kind, counted, passed

if TYPE_CHECKING:
    from detkd.config import DistillConfig
    from detkd.doctor.observing import Observation

TASK_SILENT = Kind(
    "task.silent",
    "error",
    "the student's own loss has no gradient",
    "Nothing in the batches is labelled, all of the student is frozen, or it has a single class that excludes all others.",
    "Look at the labels, at trainer.freeze, and at the number of classes.",
)
NOT_FINITE = Kind(
    "gradient.not_finite",
    "error",
    "a gradient is NaN or infinite",
    "A loss overflows in half precision, or weights or data hold NaN.",
    "Train with full precision (trainer.amp=false, or trainer.precision=32-true); look at the teacher's weights.",
)
SILENT = Kind(
    "term.silent",
    "error",
    "a term has no gradient at the student",
    "A softmax over one class, samples that are compared with each other in a batch of one, a threshold that the teacher "
    "never reaches, or a teacher that finds nothing.",
    "Leave the term out, or take one that suits the task (for one class, a sigmoid's); lower its threshold; enlarge the "
    "batch.",
)
BLIND = Kind(
    "balance.blind",
    "error",
    "the balance sees no gradient of the task loss, and holds all terms at 0",
    "The features that the student's adapter gives are not on the way to its loss: copies, views, or another module's.",
    "Let the adapter's take_outputs return the very tensors that the model goes on with; until then distill.balance=none.",
)
IDLE = Kind(
    "term.idle",
    "note",
    "a term was not at work in the steps that were looked at",
    "Its schedule holds it at 0 when training starts.",
    "Nothing, if the schedule is meant so.",
)
DROWNS = Kind(
    "term.drowns",
    "error",
    "a term pulls far harder than the labels",
    "Its weight was tuned to another loss or batch size. The gradient's norm is clipped, so the labels hardly count.",
    "Set distill.balance=gradient_ratio and leave the weight out, or divide the weight by the number shown.",
)
HEAVY = Kind(
    "term.heavy",
    "warning",
    "a term pulls several times as hard as the labels",
    "Its weight is large for this task loss.",
    "Set distill.balance=gradient_ratio and leave the weight out, or lower the weight.",
)
FAINT = Kind(
    "term.faint",
    "warning",
    "a term hardly pulls at the student",
    "Its weight is tiny for this task loss, or the two already agree.",
    "Set distill.balance=gradient_ratio and leave the weight out, or raise the weight.",
)
OPPOSES = Kind(
    "term.opposes",
    "warning",
    "a term pulls against the labels",
    "The teacher contradicts the labels (other classes, other rules of labelling, poor predictions), or the loss asks for "
    "something that the task does not need.",
    "Look at what the teacher finds on training pictures; take another term, a smaller weight, or a schedule with `stop`.",
)
KINDS = (TASK_SILENT, NOT_FINITE, SILENT, BLIND, DROWNS, HEAVY, FAINT, OPPOSES, IDLE)

# As multiples of the task loss's gradient. ultralytics' own distillation at 10 to 50 lost half of the student's AP.
MOST, MUCH, LITTLE = 10.0, 5.0, 0.01
AGAINST = -0.2  # cosine


def check_gradients(seen: Observation, config: DistillConfig) -> list[Finding]:
    """Judge the gradients that were measured in some training steps.

    Args:
        seen: The steps.
        config: The terms.
    """
    findings = []
    if not all(map(math.isfinite, seen.task)):
        findings.append(NOT_FINITE.found("That of the task loss."))
    elif seen.task and not any(seen.task):
        findings.append(TASK_SILENT.found(f"In {counted(len(seen.task), 'batch', 'batches')}."))
    elif seen.task and not any(seen.places) and config.balance in {"gradient_ratio", "meta"}:
        findings.append(BLIND.found(f"In {counted(len(seen.task), 'batch', 'batches')}."))
    for name in config.terms if seen.calls else ():
        findings += _term(name, seen)
    return findings


def _term(name: str, seen: Observation) -> list[Finding]:
    norms, pulls, cosines = (found.get(name, []) for found in (seen.norms, seen.pulls, seen.cosines))
    if not norms:
        return [IDLE.found(f"`{name}` in {counted(len(seen.calls), 'batch', 'batches')}.")]
    if not all(map(math.isfinite, norms)):
        return [NOT_FINITE.found(f"That of `{name}`.")]
    if not any(norms):
        return [SILENT.found(f"`{name}`: 0 in each of {counted(len(norms), 'batch', 'batches')}.")]
    if not pulls:
        return []
    pull, cosine = statistics.median(pulls), statistics.fmean(cosines or [0.0])
    batches = counted(len(pulls), "batch", "batches")
    detail = f"`{name}`: {pull:.2g} times the task loss's gradient, cosine {cosine:.2f} ({batches})."
    found = []
    if pull > MUCH:
        found.append((DROWNS if pull > MOST else HEAVY).found(detail))
    elif pull < LITTLE:
        found.append(FAINT.found(detail))
    if cosine < AGAINST:
        found.append(OPPOSES.found(detail))
    return found or [passed("gradient", detail)]
