"""The report of a comparison."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from detkd.report.comparison import told_as
from detkd.report.curves import read_curves
from detkd.report.html.images import merged
from detkd.report.html.models import Model, class_chart, per_class, precision_charts
from detkd.report.html.page import render
from detkd.report.html.rows import Mark, Row, row_chart
from detkd.report.html.training import validation_chart
from detkd.report.records import COMPARISON, DEFAULT_METRICS, RESULTS, Comparison, read_record, read_results

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from markupsafe import Markup

COLOURS = 6  # of series in the style sheet


def comparison_page(folder: Path) -> str:
    """The page of a comparison, from comparison.json and the folders of its runs beside it."""
    report = read_record(folder / COMPARISON, Comparison, "Call detkd compare again: it keeps the runs.")
    metrics = report.get("metrics", list(DEFAULT_METRICS))
    recipes = report["recipes"]
    others = [name for name in recipes if name != report["baseline"]]
    styles = {report["baseline"]: "baseline"}
    styles |= {name: f"series-{index % COLOURS + 1}" for index, name in enumerate(others)}
    runs = {name: _runs(folder, name, report["seeds"]) for name in recipes}
    first = {name: folder / f"{name}-{report['seeds'][0]}" for name in recipes}
    teacher = _best_teacher(runs, report)
    task = next((run["task"] for own in runs.values() for run in own), None)
    validation = (
        validation_chart(
            {name: (styles[name], [run["history"] for run in runs[name]]) for name in recipes if runs[name]}, task
        )
        if task
        else None
    )
    return render(
        "comparison.html",
        name=folder.resolve().name,
        report=report,
        metrics=metrics,
        gained=[metric for metric in metrics if metric != "AP75"],
        told_as=told_as,
        others=others,
        styles=styles,
        costs={name: _costs(own) for name, own in runs.items()},
        teacher=teacher,
        seeds=[(metric, _seeds(report, metric, styles)) for metric in metrics],
        gains=[(metric, _gains(report, metric, styles)) for metric in metrics if others],
        validation=validation,
        precision=_precision(first, styles),
        classes=_classes(runs, teacher, report["split"], styles),
        pictures=merged(first),
        configs=_configs(first),
    )


def _runs(folder: Path, recipe: str, seeds: list[int]) -> list[dict[str, Any]]:
    """What the runs of a recipe found; without those whose folder is gone."""
    folders = [folder / f"{recipe}-{seed}" for seed in seeds]
    return [read_results(run) for run in folders if (run / RESULTS).is_file()]


def _costs(runs: list[dict[str, Any]]) -> dict[str, float] | None:
    """What the student of a recipe costs; its time is the median of the runs."""
    if not runs:
        return None
    student = runs[0]["student"]
    time = statistics.median(run["student"]["cpu_ms"] for run in runs)
    return {"parameters": student["parameters"], "gflops": student["gflops"], "cpu_ms": time}


def _best_teacher(runs: Mapping[str, list[dict[str, Any]]], report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The teacher whose metrics the comparison tells; None where its runs are gone, or there is none."""
    if report["teacher"] is None:
        return None
    first = report.get("metrics", list(DEFAULT_METRICS))[0]
    taught: list[dict[str, Any]] = [teacher for own in runs.values() for run in own for teacher in run["teachers"]]
    told = report["teacher"][first]
    return next((one for one in taught if one["metrics"].get(report["split"], {}).get(first) == told), None)


def _seeds(report: Mapping[str, Any], metric: str, styles: Mapping[str, str]) -> Markup:
    """Every seed of every recipe as a dot, and the mean as a stroke."""
    rows = []
    for name, recipe in report["recipes"].items():
        known = [(seed, value) for seed, value in zip(report["seeds"], recipe[metric], strict=True) if value is not None]
        marks = [Mark(value, styles[name], f"{name}, seed {seed}: {value:.3f}") for seed, value in known]
        if known:
            mean = statistics.mean(value for _, value in known)
            marks.append(Mark(mean, styles[name], f"{name}, mean: {mean:.3f}", bar=True))
        rows.append(Row(name, marks))
    teacher = (report["teacher"] or {}).get(metric)
    lines = [] if teacher is None else [(teacher, "teacher", f"teacher: {teacher:.3f}")]
    return row_chart(rows, label=f"{metric} of every seed", x=f"{metric} on {report['split']}", references=lines)


def _gains(report: Mapping[str, Any], metric: str, styles: Mapping[str, str]) -> Markup:
    """The mean difference of each recipe from the baseline, with its interval."""
    rows = []
    for name, recipe in report["recipes"].items():
        difference = recipe.get("difference", {}).get(metric)
        if difference is None or difference["mean"] is None:
            continue
        ends = None if difference["low"] is None else (difference["low"], difference["high"])
        words = f"{name}: {difference['mean']:+.3f}" + (f" ({ends[0]:+.3f} to {ends[1]:+.3f})" if ends else " (one pair)")
        rows.append(Row(name, [Mark(difference["mean"], styles[name], words, ends)]))
    return row_chart(
        rows,
        label=f"differences of {metric} from {report['baseline']}",
        x=f"difference of {metric} from {report['baseline']}",
        references=[(0.0, "zero", report["baseline"])],
    )


def _precision(first: Mapping[str, Path], styles: Mapping[str, str]) -> list[tuple[str, Markup]]:
    """Precision-recall curves of the first seed, of the teacher and of each recipe."""
    curves: dict[str, Any] = {}
    for name, folder in first.items():
        for role, curve in read_curves(folder).get("precision_recall", {}).items():
            curves.setdefault(name if role == "student" else role, curve)
    drawn = {"teacher": ("teacher", "teacher")} | {name: (name, style) for name, style in styles.items()}
    return precision_charts(curves, drawn)[0]


def _classes(
    runs: Mapping[str, list[dict[str, Any]]], teacher: dict[str, Any] | None, split: str, styles: Mapping[str, str]
) -> Markup | None:
    """AP of each class, mean of the seeds."""
    tables = {name: _mean([per_class(run["student"], split, "AP") for run in own]) for name, own in runs.items()}
    models = [Model(name, style, {}) for name, style in styles.items()]
    if teacher is not None:
        models.insert(0, Model("teacher", "teacher", {}))
        tables["teacher"] = per_class(teacher, split, "AP")
    return class_chart(models, tables, "AP")


def _mean(tables: list[dict[str, float | None]]) -> dict[str, float | None]:
    names = list(dict.fromkeys(name for table in tables for name in table))
    values = {name: [value for table in tables if (value := table.get(name)) is not None] for name in names}
    return {name: statistics.mean(own) if own else None for name, own in values.items()}


def _configs(first: Mapping[str, Path]) -> list[tuple[str, str]]:
    paths = {name: folder / "config.yaml" for name, folder in first.items()}
    return [(name, path.read_text(encoding="utf-8", errors="replace")) for name, path in paths.items() if path.is_file()]
