"""The report of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detkd.report.curves import read_curves
from detkd.report.html.images import pictures_of
from detkd.report.html.models import (
    ALONE,
    class_chart,
    cost_rows,
    differences,
    interval_chart,
    models_of,
    per_class,
    precision_charts,
    reliability_charts,
    results_rows,
)
from detkd.report.html.page import number, render, share, signed
from detkd.report.html.rows import heat_map
from detkd.report.html.training import training_charts
from detkd.report.records import read_results

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from markupsafe import Markup

    from detkd.report.html.models import Model

HEADLINE = {"detect": "AP", "segment": "AP", "classify": "accuracy"}
MEANINGS = {"detect": "box AP", "segment": "mask AP", "classify": "accuracy"}
WITH_INTERVALS = ("AP", "AP50", "AP75", "accuracy")


def run_page(folder: Path, baseline: Path | None = None) -> str:
    """The page of a finished run, from what is in its folder; whatever an older run has not kept is left out.

    Args:
        folder: Of the run.
        baseline: Folder of the run that trained the same student alone; its figures stand beside the run's.
    """
    results, alone = read_results(folder), None if baseline is None else read_results(baseline)
    config = folder / "config.yaml"
    curves = read_curves(folder) if baseline is None else _with_alone(read_curves(folder), read_curves(baseline))
    models, task = models_of(results, alone), results["task"]
    splits = list(results["student"]["metrics"])
    last = splits[-1]
    training, weights = training_charts(results["history"], results["distill_weights"], task)
    roles = {role: (model.name, model.style) for role, model in _by_role(models).items()}
    precision, of_classes = precision_charts(curves.get("precision_recall", {}), roles)
    return render(
        "run.html",
        results=results,
        models=models,
        legend=[(model.name, model.style) for model in models],
        split=last,
        headline=_headline(models, last, task),
        alone=None if alone is None else alone["name"],
        tables=[(split, results_rows(models, split), differences(models, split)) for split in reversed(splits)],
        costs=cost_rows(models),
        intervals=interval_chart(models, last, WITH_INTERVALS),
        pictures=pictures_of(folder, baseline, curves=bool(curves)),
        precision=precision,
        of_classes=of_classes,
        classes=_class_charts(models, curves, last, task),
        reliability=reliability_charts(curves.get("reliability", {})),
        similarity=_similarity(curves.get("similarity")),
        training=training,
        weights=weights,
        config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None,
    )


def _with_alone(curves: dict[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The curves of a run, and those of the student alone from its own run."""
    parts = [part for part in ("precision_recall", "reliability", "per_class") if "student" in others.get(part, {})]
    return curves | {part: {**curves.get(part, {}), ALONE: others[part]["student"]} for part in parts}


def _by_role(models: list[Model]) -> dict[str, Model]:
    """Models by their role in curves.json."""
    return {"student" if model.style == "student" else model.name: model for model in models}


def _headline(models: list[Model], split: str, task: str) -> list[tuple[str, str, str]]:
    """Figures that say the most: what it is, the figure, and what to hold against it."""
    metric = HEADLINE[task]
    student = models[-1].section
    own = student["metrics"][split]
    interval = own.get("intervals", {}).get(metric)
    spread = "" if interval is None or None in interval else f"95 %: {interval[0]:.3f}–{interval[1]:.3f}"
    figures = [(f"{MEANINGS[task]} of the student", number(own.get(metric)), spread)]
    if gained := differences(models, split):
        figures.append((f"{MEANINGS[task]} gained", signed(gained.get(metric)), "over the student alone, one seed"))
    teachers = [model.section for model in models if model.style == "teacher"]
    if teachers:
        teacher = max(teachers, key=lambda section: section["metrics"].get(split, {}).get(metric) or 0.0)
        reached = teacher["metrics"].get(split, {}).get(metric)
        figures.append((f"{MEANINGS[task]} of the {'best ' if len(teachers) > 1 else ''}teacher", number(reached), ""))
        for name, key in (("size", "parameters"), ("CPU time", "cpu_ms")):
            if teacher[key]:
                figures.append((f"{name} of the student", share(student[key] / teacher[key]), "of the teacher's"))
    return figures


def _class_charts(models: list[Model], curves: Mapping[str, Any], split: str, task: str) -> list[tuple[str, Markup]]:
    """Charts of the classes with their titles."""
    if task == "classify":
        table = curves.get("per_class", {})
        tables = {model.name: table.get(role, {}) for role, model in _by_role(models).items()}
        metrics = {"accuracy": tables}
    else:
        names = ("AP", "IoU", "Dice", "boundary_F1") if task == "segment" else ("AP",)
        metrics = {metric: {model.name: per_class(model.section, split, metric) for model in models} for metric in names}
    charts = [(metric, class_chart(models, tables, metric)) for metric, tables in metrics.items()]
    return [(f"{metric} of each class", chart) for metric, chart in charts if chart is not None]


def _similarity(table: list[list[float]] | None) -> Markup | None:
    if not table:
        return None
    label = "similarity of the student's layers and the teacher's"
    return heat_map(table, label=label, x="layer of the teacher", y="layer of the student")
