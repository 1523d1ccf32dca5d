"""The report of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from detkd.report.curves import read_curves
from detkd.report.html.images import pictures_of
from detkd.report.html.models import (
    class_chart,
    cost_rows,
    interval_chart,
    models_of,
    per_class,
    precision_charts,
    reliability_charts,
    results_rows,
)
from detkd.report.html.page import number, render, share
from detkd.report.html.rows import heat_map
from detkd.report.html.training import training_charts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from markupsafe import Markup

    from detkd.report.html.models import Model

HEADLINE = {"detect": "AP", "segment": "AP", "classify": "accuracy"}
MEANINGS = {"detect": "box AP", "segment": "mask AP", "classify": "accuracy"}
WITH_INTERVALS = ("AP", "AP50", "AP75", "accuracy")


def run_page(folder: Path) -> str:
    """The page of a finished run, from what is in its folder; whatever an older run has not kept is left out."""
    results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    config = folder / "config.yaml"
    curves = read_curves(folder)
    models, task = models_of(results), results["task"]
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
        tables=[(split, results_rows(models, split)) for split in reversed(splits)],
        costs=cost_rows(models),
        intervals=interval_chart(models, last, WITH_INTERVALS),
        pictures=pictures_of(folder, curves=bool(curves)),
        precision=precision,
        of_classes=of_classes,
        classes=_class_charts(models, curves, last, task),
        reliability=reliability_charts(curves.get("reliability", {})),
        similarity=_similarity(curves.get("similarity")),
        training=training,
        weights=weights,
        config=config.read_text(encoding="utf-8") if config.is_file() else None,
    )


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
    if len(models) > 1:
        teacher = max((model.section for model in models[:-1]), key=lambda s: s["metrics"][split].get(metric) or 0.0)
        reached = teacher["metrics"][split].get(metric)
        figures.append((f"{MEANINGS[task]} of the {'best ' if len(models) > 2 else ''}teacher", number(reached), ""))
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
        metrics = {
            metric: {model.name: per_class(model.section["metrics"][split], metric) for model in models} for metric in names
        }
    charts = [(metric, class_chart(models, tables, metric)) for metric, tables in metrics.items()]
    return [(f"{metric} of each class", chart) for metric, chart in charts if chart is not None]


def _similarity(table: list[list[float]] | None) -> Markup | None:
    if not table:
        return None
    label = "similarity of the student's layers and the teacher's"
    return heat_map(table, label=label, x="layer of the teacher", y="layer of the student")
