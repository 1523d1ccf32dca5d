"""The findings, laid out for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from detkd.doctor.findings import ordered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detkd.doctor.findings import Finding

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def findings_tree(findings: Sequence[Finding], title: str) -> Tree:
    """A tree of all findings, the most severe first, each with what was seen, its cause and its fix.

    Args:
        findings: What was found.
        title: Name of the run.
    """
    tree = Tree(Text(title, style="bold"))
    for finding in ordered(findings):
        head = Text(f"{finding.severity}  ", style=STYLES[finding.severity])
        said = finding.detail if finding.severity == "ok" else f"{finding.symptom} ({finding.check})"
        branch = tree.add(head.append(said, style="default"))
        lines = {"seen": finding.detail, "cause": finding.cause, "fix": finding.fix}
        for name, text in lines.items() if finding.severity != "ok" else ():
            branch.add(Text.assemble((f"{name}: ", "bold"), text))
    return tree
