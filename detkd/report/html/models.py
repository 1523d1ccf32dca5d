"""Models side by side: what they reach, what they cost, and both as plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detkd.report.html.lines import Curve, line_chart, reliability_chart
from detkd.report.html.page import NONE, count, number
from detkd.report.html.rows import Mark, Row, row_chart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from markupsafe import Markup

LEFT_OUT = {"AR1", "AR10", "ARs", "ARm", "ARl"}  # of COCO's twelve numbers
ALONE = "student, alone"
CURVES = {"0.5:0.95": "mean of IoU .5 to .95", "0.5": "IoU .5", "0.75": "IoU .75"}
CLASSES = 24  # of which each has a curve of its own


@dataclass(frozen=True)
class Model:
    """A model in a report.

    Attributes:
        name: What it is called.
        style: Its class in the style sheet: ``teacher``, ``student``, ``baseline``, or a colour of a series.
        section: What results.json says of it.
    """

    name: str
    style: str
    section: Mapping[str, Any]


def models_of(results: Mapping[str, Any], alone: Mapping[str, Any] | None = None) -> list[Model]:
    """The teachers and the student of a run, the student last.

    Args:
        results: Of the run.
        alone: Of the run that trained the same student alone, if it is known; that student comes before the other.
    """
    teachers = results["teachers"]
    names = ["teacher"] if len(teachers) == 1 else [f"teacher {number + 1}" for number in range(len(teachers))]
    return [
        *(Model(name, "teacher", section) for name, section in zip(names, teachers, strict=True)),
        *([] if alone is None else [Model(ALONE, "baseline", alone["student"])]),
        Model("student, distilled" if teachers else ALONE, "student", results["student"]),
    ]


def differences(models: Sequence[Model], split: str) -> dict[str, float]:
    """The student's metrics on a split, less those of the student alone; empty where that one is not known."""
    alone, student = ([model.section for model in models if model.style == style] for style in ("baseline", "student"))
    if not alone:
        return {}
    own, other = (sections[0]["metrics"].get(split, {}) for sections in (student, alone))
    return {
        name: value - other[name]
        for name, value in own.items()
        if all(isinstance(number, int | float) for number in (value, other.get(name)))
    }


def results_rows(models: Sequence[Model], split: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Rows of the table of a split: a metric, and of each model the value and its interval."""
    sections = [model.section["metrics"].get(split, {}) for model in models]
    metrics = [
        name
        for section in sections[-1:] + sections
        for name, value in section.items()
        if name not in LEFT_OUT and (value is None or isinstance(value, float | int))
    ]
    return [(name, [_cell(section, name) for section in sections]) for name in dict.fromkeys(metrics)]


def cost_rows(models: Sequence[Model]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Rows of the table of what models cost."""
    return [
        ("parameters", [(count(model.section["parameters"]), "") for model in models]),
        ("GFLOPs", [(number(model.section["gflops"], 2), "") for model in models]),
        ("CPU ms per input", [(number(model.section["cpu_ms"], 1), "") for model in models]),
    ]


def interval_chart(models: Sequence[Model], split: str, metrics: Sequence[str]) -> Markup | None:
    """Metrics with their intervals, of each model; None where no interval is known."""
    rows = []
    for metric in metrics:
        for model in models:
            section = model.section["metrics"].get(split, {})
            interval = section.get("intervals", {}).get(metric)
            if interval is None or None in interval or section.get(metric) is None:
                continue
            words = f"{model.name}: {metric} {section[metric]:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
            name = f"{metric} {model.name.split(', ')[-1]}"
            rows.append(Row(name, [Mark(section[metric], model.style, words, tuple(interval))]))
    return row_chart(rows, label=f"metrics on {split} with 95 % intervals", x="value, 95 % interval") if rows else None


def class_chart(models: Sequence[Model], tables: Mapping[str, Mapping[str, float | None]], metric: str) -> Markup | None:
    """A metric of each class and model; None where there are not several classes, which would say nothing new.

    Args:
        models: The models.
        tables: By the name of a model, its classes' values.
        metric: What they are.
    """
    names = list(dict.fromkeys(name for model in models for name in tables.get(model.name, {})))
    rows = []
    for name in names:
        marks = []
        for model in models:
            value = tables.get(model.name, {}).get(name)
            if value is not None:
                marks.append(Mark(value, model.style, f"{name}, {model.name}: {value:.3f}"))
        rows.append(Row(name, marks))
    return row_chart(rows, label=f"{metric} of each class", x=metric, x_range=(0, 1)) if len(rows) > 1 else None


def per_class(section: Mapping[str, Any], split: str, metric: str) -> dict[str, float | None]:
    """A metric of each class, of a model's section on a split; of detectors AP is all there is."""
    table = section["metrics"].get(split, {}).get("per_class", {})
    return {
        name: value.get(metric) if isinstance(value, dict) else value
        for name, value in table.items()
        if isinstance(value, dict) or metric == "AP"
    }


def precision_charts(
    curves: Mapping[str, Mapping[str, Any]], styles: Mapping[str, tuple[str, str]]
) -> tuple[list[tuple[str, Markup]], list[tuple[str, Markup]]]:
    """Precision-recall curves with their titles: of all classes, at several overlaps; and of each class.

    Args:
        curves: What curves.json holds of each role.
        styles: Name and style of each role that is drawn.
    """

    def chart(title: str, part: str, key: str) -> tuple[str, Markup]:
        drawn = []
        for role, (name, style) in styles.items():
            values = curves.get(role, {}).get(part, {}).get(key)
            if values:
                last = len(values) - 1
                drawn.append(Curve(name, style, [(index / last, value) for index, value in enumerate(values)]))
        label = f"precision over recall, {title}"
        return title, line_chart(drawn, label=label, x="recall", y="precision", x_range=(0, 1), y_range=(0, 1.02))

    known = [curves[role] for role in styles if role in curves]
    overlaps = [key for key in CURVES if any(key in curve["by_overlap"] for curve in known)]
    classes = list(dict.fromkeys(name for curve in known for name in curve["by_class"]))
    of_classes = [chart(name, "by_class", name) for name in classes[:CLASSES]] if len(classes) > 1 else []
    return [chart(CURVES[key], "by_overlap", key) for key in overlaps], of_classes


def reliability_charts(curves: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Reliability diagrams with their titles, of each role in curves.json."""
    return [
        (
            f"{role}: ECE {number(curve['ECE'])}",
            reliability_chart(curve["edges"], curve["accuracy"], curve["counts"], label=f"reliability of the {role}"),
        )
        for role, curve in curves.items()
    ]


def _cell(section: Mapping[str, Any], name: str) -> tuple[str, str]:
    interval = section.get("intervals", {}).get(name)
    if interval is None or None in interval:
        return (number(section[name]) if name in section else NONE), ""
    return number(section[name]), f"{interval[0]:.3f}–{interval[1]:.3f}"
