"""The order of findings, the verdict, and how they are shown."""

from __future__ import annotations

import io

from rich.console import Console

from detkd.doctor.findings import Finding, Kind, ordered, passed, verdict
from detkd.doctor.printing import findings_tree

BAD = Kind("term.silent", "error", "a term is silent", "One class.", "Leave it out.")
RISKY = Kind("steps.few", "warning", "there are few steps", "Few pictures.", "More epochs.")
AWARE = Kind("fit.levels", "note", "a level meets none", "Other strides.", "Nothing.")
FINE = passed("memory", "12 MiB of 1 GiB.")


def found() -> list[Finding]:
    return [FINE, AWARE.found("stride 64"), RISKY.found("97 steps."), BAD.found("`soft_kl`."), RISKY.found("again")]


def test_the_most_severe_comes_first_and_the_rest_keeps_its_order() -> None:
    assert [finding.detail for finding in ordered(found())] == [
        "`soft_kl`.",
        "97 steps.",
        "again",
        "stride 64",
        FINE.detail,
    ]


def test_the_verdict_is_one_line_that_names_the_worst() -> None:
    assert verdict(found()) == "Do not train like this (1 error, 2 warnings). First: a term is silent."
    assert verdict(found()[:3]).startswith("It will run, but may gain less than it could (1 warning). First: there are few")
    assert verdict(found()[:2]) == verdict([]) == "Nothing stands in the way."


def test_each_finding_is_shown_with_its_cause_and_its_fix() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(findings_tree(found(), "run"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.lstrip("│├└─ ") for line in shown.splitlines()]
    assert lines[:5] == [
        "run",
        "error  a term is silent (term.silent)",
        "seen: `soft_kl`.",
        "cause: One class.",
        "fix: Leave it out.",
    ]
    assert lines[-1] == "ok  12 MiB of 1 GiB."
