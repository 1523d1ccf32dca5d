"""All kinds of findings, and the table of them in docs/doctor.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.doctor import cost, environment, examination, fit, gradients, hindsight, teacher, wiring
from detkd.doctor.findings import SEVERITIES

if TYPE_CHECKING:
    from detkd.doctor.findings import Kind

KINDS: tuple[Kind, ...] = (
    *teacher.KINDS,
    *fit.KINDS,
    *gradients.KINDS,
    *wiring.KINDS,
    *examination.KINDS,
    *cost.KINDS,
    *environment.KINDS,
    *hindsight.KINDS,
)


def table() -> str:
    """All kinds as a Markdown table, the most severe first."""
    rows = sorted(KINDS, key=lambda kind: SEVERITIES.index(kind.severity))
    lines = ["| finding | symptom | cause | fix |", "|---|---|---|---|"]
    lines += [f"| {kind.severity} `{kind.code}` | {kind.symptom} | {kind.cause} | {kind.fix} |" for kind in rows]
    return "".join(f"{line}\n" for line in lines)
