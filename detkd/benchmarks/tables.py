"""Figures of the ops as a table and a plot."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.benchmarks.timing import Result

CONTESTANTS = ("detkd", "eager", "compile")


def results_table(results: list[Result]) -> Table:
    """One row a case: milliseconds forward and backward, how many times faster detkd is, bandwidth and memory."""
    timed = [*CONTESTANTS, *(["liger"] if any("liger" in r.forward_backward for r in results) else [])]
    table = Table("op", "", "shape", *(f"{name} ms" for name in timed), "× eager", "× compile", "GB/s", "memory")
    for r in results:
        ms = r.forward_backward
        gains = [f"{ms[name] / ms['detkd']:.1f}" for name in CONTESTANTS[1:]]
        times = [f"{ms[name]:.2f}" if name in ms else "" for name in timed]
        row = [r.op, r.label, "×".join(map(str, r.shape)), *times, *gains]
        table.add_row(*row, f"{r.gigabytes_per_second:.0f}", f"{r.extra_memory['detkd']:.2f}")
    return table


def summary(results: list[Result], copy: float) -> list[str]:
    """Lines below the table: the mean gain over each other contestant, and what the machine copies."""
    lines = []
    for name in CONTESTANTS[1:]:
        gain = statistics.geometric_mean(r.forward_backward[name] / r.forward_backward["detkd"] for r in results)
        lines.append(f"geometric mean over {name}: {gain:.1f}×")
    return [*lines, f"copy: {copy:.0f} GB/s; memory is the peak in sizes of the gradient"]


def plot(results: list[Result], title: str, path: Path) -> None:
    """Draw how many times faster detkd is, in log scale."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.42 * len(results) + 1.6))
    for offset, name, colour in ((-0.2, "eager", "#9aa5b1"), (0.2, "compile", "#1f6feb")):
        gains = [r.forward_backward[name] / r.forward_backward["detkd"] for r in results]
        places = [i + offset for i in range(len(results))]
        axes.barh(places, gains, 0.38, color=colour, label=f"× {name}")
        for place, gain in zip(places, gains, strict=True):
            axes.text(gain * 1.04, place, f"{gain:.1f}", va="center", fontsize=7)
    names = [f"{r.op} {r.label}  {'×'.join(map(str, r.shape))}" for r in results]
    axes.set(xscale="log", yticks=range(len(results)), xlabel="times faster, forward and backward", title=title)
    axes.set_yticklabels(names, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
