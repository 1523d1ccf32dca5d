"""What is drawn as curves in a run's report, in a file of its own: results.json stays short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detkd.files import write_json
from detkd.report.records import Curves, read_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from detkd.evaluation.classification import Reliability
    from detkd.evaluation.coco import PrecisionRecall

FILE = "curves.json"
DIGITS = 4


def write_precision(folder: Path, split: str, curves: Mapping[str, PrecisionRecall]) -> None:
    """Keep the precision-recall curves of each model, by its role, on a split."""
    write_json(
        folder / FILE,
        {
            "split": split,
            "precision_recall": {
                role: {"by_overlap": _rounded(curve.by_overlap), "by_class": _rounded(curve.by_class)}
                for role, curve in curves.items()
            },
        },
    )


def write_reliability(
    folder: Path,
    split: str,
    curves: Mapping[str, Reliability],
    per_class: Mapping[str, Mapping[str, float]],
    similarity: list[list[float]] | None,
) -> None:
    """Keep what is drawn of classifiers on a split.

    Args:
        folder: Of the run.
        split: The split.
        curves: Reliability of each model, by its role.
        per_class: Accuracy in each class, of each model.
        similarity: CKA of each layer of the student with each of the teacher's, [layers of the student, layers of the
            teacher]; None without a teacher.
    """
    reliability = {
        role: {
            "edges": curve.edges.tolist(),
            "counts": curve.counts.tolist(),
            "accuracy": curve.accuracy.tolist(),
            "ECE": curve.error,
        }
        for role, curve in curves.items()
    }
    write_json(
        folder / FILE,
        {"split": split, "reliability": reliability, "per_class": per_class, "similarity": similarity},
    )


def read_curves(folder: Path) -> dict[str, Any]:
    """What a run has kept; empty where it has nothing.

    Raises:
        DataError: If the file is broken or of something else.
    """
    path = folder / FILE
    return read_record(path, Curves, "Delete it; the report then has no such curves.") if path.is_file() else {}


def _rounded(curves: Mapping[str, list[float]]) -> dict[str, list[float]]:
    return {name: [round(value, DIGITS) for value in curve] for name, curve in curves.items()}
