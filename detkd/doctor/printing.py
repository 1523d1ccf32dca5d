"""The findings on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from detkd.doctor.findings import ordered, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detkd.doctor.findings import Finding

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def print_findings(findings: Sequence[Finding], title: str, console: Console | None = None) -> None:
    """Print a tree of all findings, the most severe first, each with its cause and its fix, and a verdict.

    Args:
        findings: What was found.
        title: Name of the run.
        console: Where to write; standard output if None.
    """
    console = Console() if console is None else console
    tree = Tree(Text(title, style="bold"))
    for finding in ordered(findings):
        head = Text(f"{finding.severity}  ", style=STYLES[finding.severity])
        if finding.severity == "ok":
            head.append(finding.detail, style="default")
            tree.add(head)
            continue
        head.append(f"{finding.symptom} ({finding.check})", style="default")
        branch = tree.add(head)
        for name in ("detail", "cause", "fix"):
            branch.add(Text.assemble((f"{'seen' if name == 'detail' else name}: ", "bold"), getattr(finding, name)))
    console.print(tree)
    console.print(Text(verdict(findings), style="bold"))
