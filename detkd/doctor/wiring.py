"""Do the hooks fire once a step, and does the optimizer hold all that learns beside the student."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.doctor.findings import Finding, Kind, counted, passed

if TYPE_CHECKING:
    from detkd.doctor.observing import Observation

NEVER = Kind(
    "hooks.never",
    "error",
    "the hooks on the student never fire",
    "The model that trains is another object than the one that was hooked: a copy, or one that the trainer has built anew.",
    "Make the distiller of the very model that trains, after every copy (`attach` comes last).",
)
TWICE = Kind(
    "hooks.repeated",
    "error",
    "a watched module runs more than once a step",
    "The forward pass is run twice, or a module is shared between places. Only what it said last is distilled.",
    "Run the student once a step, or give each place a module of its own.",
)
FAILED = Kind(
    "step.failed",
    "error",
    "the first training steps fail",
    "What the message says.",
    "Do what the message says.",
)
LEFT_OUT = Kind(
    "aligner.left_out",
    "error",
    "the optimizer does not hold all that should learn",
    "Aligners (or a loss's own layers) were made after the optimizer, or were not handed to it. The student would chase a "
    "random projection of the teacher.",
    "Build the distiller before the optimizer, and add distiller.parameters() to it.",
)
UNMOVED = Kind(
    "aligner.unmoved",
    "warning",
    "some of what should learn never has a gradient",
    "Its term is held at 0, is frozen, or does not depend on it.",
    "Leave the term out, or look at its schedule and at requires_grad of the aligners.",
)
KINDS = (FAILED, NEVER, TWICE, LEFT_OUT, UNMOVED)


def check_wiring(seen: Observation) -> list[Finding]:
    """Judge how the models, the distiller and the optimizer hang together in some training steps."""
    findings = []
    if seen.failure is not None:
        kind = NEVER if "recorded nothing" in str(seen.failure) else FAILED
        findings.append(kind.found(" ".join(str(seen.failure).split())))
    later = seen.calls[1:]  # before the first batch, and some others, a balance may look ahead with a pass of its own
    often = {path: min(batch[0][path] for batch in later) for path in (later[0][0] if later else ())}
    repeated = {path or "the model": count for path, count in often.items() if count > 1}
    if repeated:
        findings.append(
            TWICE.found(", ".join(f"`{path}` ran {count} times" for path, count in repeated.items()) + " in a step.")
        )
    elif seen.calls and seen.failure is None:
        findings.append(
            passed("hooks", f"They fired once a step in each of {counted(len(seen.calls), 'batch', 'batches')}.")
        )
    if seen.left_out:
        findings.append(LEFT_OUT.found(f"{counted(len(seen.left_out), 'tensor')}, e.g. `{seen.left_out[0]}`."))
    if seen.unmoved:
        findings.append(UNMOVED.found(f"{counted(len(seen.unmoved), 'tensor')}, e.g. `{seen.unmoved[0]}`."))
    return findings
