"""Is the teacher better than the student on this data."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.doctor.findings import Finding, Kind, passed
from detkd.doctor.sampling import LEAST, choose, portions
from detkd.engines.families import FAMILIES
from detkd.engines.run import judged_teachers
from detkd.engines.tasks import Judged, task_of
from detkd.errors import DataError
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.paired import paired_difference
from detkd.report.reporter import SILENT, reporting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from detkd.config import RunConfig
    from detkd.evaluation.paired import PairedDifference

WORSE = Kind(
    "teacher.no_better",
    "error",
    "the teacher is no better than the student on this data",
    "It is untrained, was trained on other data, its weights fit its architecture in part, its classes are other ones, or "
    "it sees the pictures at a size that it does not know.",
    "Train it on this data first (the same configuration with distill=null), until it leads clearly.",
)
CLOSE = Kind(
    "teacher.close",
    "warning",
    "the teacher leads the student by little",
    "Where the teacher leads by less than .05, no method can show a gain beyond the spread between seeds.",
    "Take a larger teacher, or train it longer; or a smaller student, whose gap is worth closing.",
)
UNSURE = Kind(
    "teacher.unsure",
    "note",
    "the sample cannot tell whether the teacher leads",
    "The interval of the difference reaches 0: the pictures are few, or the two are alike.",
    "Judge both on the whole split with detkd evaluate.",
)
KINDS = (WORSE, CLOSE, UNSURE)

LEAD = 0.05
PORTIONS = 8
SIZES = {"detect": 4, "segment": 4, "classify": 64}  # samples of a portion, by task


def check_teachers(
    student: nn.Module, teachers: Sequence[nn.Module], config: RunConfig, dataset: Any, *, seconds: float
) -> list[Finding]:
    """Compare each teacher with the student on some portions of the validation split.

    Args:
        student: The student as the run starts.
        teachers: The teachers.
        config: The run.
        dataset: Its data.
        seconds: After which no further portion is begun; there are four at least.
    """
    if config.distill is None or not config.distill.of_own_models(config.distill.all_teachers):
        return []
    metric, split = task_of(config).METRICS[0], dataset.watched
    models, trained = _judged(student, teachers, config), config.student.weights is not None or config.distill.inherit
    roles = config.distill.of_own_models(list(models)[1:])
    places = portions(len(dataset.images(split)), size=SIZES[config.task], most=PORTIONS)
    end, scores, seen = time.monotonic() + seconds, {role: list[float]() for role in models}, 0
    for turn, portion in enumerate(places):
        if turn >= LEAST and time.monotonic() > end:
            break
        try:
            found = _scores(models, config, choose(dataset, split, portion), split)
        except DataError as error:  # no class in common
            return [UNSURE.found(str(error))]
        seen += len(portion)
        for role in models:
            scores[role].append(found[role][metric])
    return [_compare(role, scores, f"{metric} on {seen} of `{split}`", trained=trained) for role in roles]


def _judged(student: nn.Module, teachers: Sequence[nn.Module], config: RunConfig) -> dict[str, Judged]:
    """All models by their role: copies, because a predictor may fuse their layers."""
    own = Judged(copy.deepcopy(student).cpu(), FAMILIES[config.family], {}, config.train.imgsz)
    return {"student": own, **judged_teachers(config, [copy.deepcopy(teacher) for teacher in teachers])}


def _scores(models: Mapping[str, Judged], config: RunConfig, dataset: Any, split: str) -> dict[str, dict[str, float]]:
    """Metrics of each model on a split; objects are told from pixels as while training, not by a search."""
    changes: dict[str, Any] = {"evaluate": (split,)}
    segment = getattr(config, "segment", None)
    if segment is not None and segment.instances is None:
        changes["segment"] = segment.model_copy(update={"instances": InstanceSettings.model_validate({})})
    with tempfile.TemporaryDirectory() as folder, reporting(SILENT):
        report = task_of(config).evaluate(models, dataset, config.model_copy(update=changes), Path(folder))
    return {role: metrics[split] for role, metrics in report.items()}


def _compare(role: str, scores: Mapping[str, Sequence[float]], where: str, *, trained: bool) -> Finding:
    pairs = [(one, two) for one, two in zip(scores[role], scores["student"], strict=True) if not math.isnan(one + two)]
    if not pairs:
        return UNSURE.found(f"{role}: no {where} that could be told for both.")
    teacher, student = ([pair[index] for pair in pairs] for index in (0, 1))
    lead = paired_difference(teacher, student)
    means = [sum(values) / len(pairs) for values in (teacher, student)]
    whose = "student" if trained else "student before training"
    shown = f"{lead.mean:.3f}{_interval(lead)}"
    detail = f"{role}: {means[0]:.3f} against {means[1]:.3f} of the {whose}, a lead of {shown} ({where})."
    if lead.mean <= 0 or (not trained and lead.mean < LEAD):
        return WORSE.found(detail)
    if lead.mean < LEAD:
        return CLOSE.found(detail)
    if lead.low is None or lead.low <= 0:
        return UNSURE.found(detail)
    return passed("teacher", detail)


def _interval(lead: PairedDifference) -> str:
    return "" if lead.low is None else f", 95 % interval {lead.low:.3f} to {lead.high:.3f}"
