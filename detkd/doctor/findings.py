"""What the doctor finds: a symptom that was measured, its cause, and its fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Severity = Literal["error", "warning", "note", "ok"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note", "ok")  # the most severe first


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        severity: ``error`` makes the run pointless or impossible, ``warning`` may cost what distillation could gain,
            ``note`` is worth knowing, ``ok`` is as it should be.
        check: What was looked at, or the code of the :class:`Kind`.
        symptom: What is wrong; of what is ``ok``, empty.
        detail: What was measured.
        cause: Why it is so.
        fix: What to do.
    """

    severity: Severity
    check: str
    symptom: str
    detail: str
    cause: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of finding, as docs/doctor.md lists it.

    Attributes:
        code: Subject and fault, for programs.
        severity: How bad it is.
        symptom: What is wrong, in a few words.
        cause: Why it is so.
        fix: What to do.
    """

    code: str
    severity: Severity
    symptom: str
    cause: str
    fix: str

    def found(self, detail: str) -> Finding:
        """A finding of this kind, with what was measured."""
        return Finding(self.severity, self.code, self.symptom, detail, self.cause, self.fix)


def passed(check: str, detail: str) -> Finding:
    """A finding that nothing is wrong."""
    return Finding("ok", check, "", detail)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The most severe first; those of one severity in the order in which they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def verdict(findings: Iterable[Finding]) -> str:
    """All findings in one line."""
    found = ordered(findings)
    counts = {severity: sum(one.severity == severity for one in found) for severity in SEVERITIES}
    errors, warnings = counted(counts["error"], "error"), counted(counts["warning"], "warning")
    if counts["error"]:
        return f"Do not train like this ({errors}, {warnings}). First: {found[0].symptom}."
    if counts["warning"]:
        return f"It will run, but may gain less than it could ({warnings}). First: {found[0].symptom}."
    return "Nothing stands in the way."


def counted(number: int, what: str, several: str | None = None) -> str:
    """A number and what it counts, in the singular or the plural."""
    return f"{number} {what if number == 1 else several or what + 's'}"
