"""What the record of a finished run tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from detkd.config import parse_distillation
from detkd.doctor.hindsight import check_record
from tests.doctor.conftest import by_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from detkd.doctor.findings import Finding

FLAT = [0.1, 0.3, 0.45, 0.5, *[0.55] * 16]


def record(
    course: Sequence[float] = FLAT,
    *,
    student: float = 0.55,
    teacher: float | None = 0.65,
    term: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Results of a run with the term pkd."""
    count = len(course)
    term = [1.0 - 0.5 * index / count for index in range(count)] if term is None else term
    weights = [6.0] * count if weights is None else weights
    return {
        "student": {"metrics": {"val": {"AP": 0.9}, "test": {"AP": student}}},
        "teachers": [] if teacher is None else [{"metrics": {"val": {"AP": 0.9}, "test": {"AP": teacher}}}],
        "history": [{"metrics/AP": value, "train/pkd": loss} for value, loss in zip(course, term, strict=True)],
        "distill_weights": [{"pkd": weight} for weight in weights],
    }


def judge(results: dict[str, Any], alone: dict[str, Any] | None = None, **distill: Any) -> dict[str, Finding]:
    """The findings by their codes."""
    config = parse_distillation({"teacher": {}, "terms": {"pkd": {}}, **distill})
    return by_code(check_record(results, config, watched="metrics/AP", metric="AP", alone=alone))


def test_a_run_that_gained_is_in_order() -> None:
    found = judge(record(), record(student=0.45))
    assert {finding.severity for finding in found.values()} == {"ok"}
    assert "the student alone 0.450 (+0.100, one seed)" in found["run"].detail


def test_a_teacher_without_a_lead_is_named() -> None:
    found = judge(record(teacher=0.58), record(student=0.54))["run.no_gap"]
    assert found.severity == "warning"
    assert "0.580" in found.detail
    assert "better teacher" in found.fix
    assert "run.no_gap" not in judge(record(teacher=0.60), record(student=0.54))


def test_no_gain_over_the_student_alone_is_named() -> None:
    assert judge(record(student=0.55), record(student=0.56))["run.no_gain"].severity == "warning"


def test_without_a_run_of_the_student_alone_closeness_is_a_note() -> None:
    assert judge(record(student=0.63))["run.reached"].severity == "note"
    assert "run.reached" not in judge(record(student=0.55))


def test_a_course_that_still_rises_is_named() -> None:
    rising = [index / 40 for index in range(20)]
    found = judge(record(rising))["run.rising"]
    assert found.severity == "warning"
    assert "+0.050" in found.detail  # of the last four, the mean of two against that of the two before: 2 / 40
    assert "longer" in found.fix
    assert "run.rising" not in judge(record())


def test_a_student_that_was_best_early_is_a_note() -> None:
    found = judge(record([0.1, 0.6, *[0.5] * 18]))["run.overfitted"]
    assert "validation 2 of 20" in found.detail


def test_few_validations_say_nothing_of_the_course() -> None:
    assert not {"run.rising", "run.overfitted"} & set(judge(record([0.1, 0.2, 0.3])))


def test_a_term_that_was_held_back_is_a_note() -> None:
    # Published at 6, held at 1.5 for a share of 1: at 6 it would pull four times as hard.
    found = judge(record(weights=[1.5] * 20))["run.held_back"]
    assert found.severity == "note"
    assert "4.0 times" in found.detail
    assert "run.held_back" not in judge(record(weights=[6.5] * 20))
    assert "run.held_back" not in judge(record(weights=[1.5] * 20), balance="none")


@pytest.mark.parametrize("planted", [{"weights": [0.0] * 20}, {"term": [0.0] * 20}])
def test_a_term_that_did_nothing_is_named(planted: dict[str, Any]) -> None:
    found = judge(record(**planted))["run.silenced"]
    assert found.severity == "error"
    assert "`pkd`" in found.detail


def test_a_student_that_did_not_follow_is_named() -> None:
    assert judge(record(term=[1.0] * 20))["run.unfollowed"].severity == "warning"


def test_a_run_without_a_teacher_has_a_course_alone() -> None:
    found = check_record(record(teacher=None), None, watched="metrics/AP", metric="AP")
    assert [finding.check for finding in found] == ["run"]


def test_an_average_of_the_student_is_not_judged_as_a_model() -> None:
    found = judge(record(teacher=0.56, term=[1.0] * 20), teacher={"ema": 0.99})
    assert not {"run.reached", "run.no_gap", "run.unfollowed"} & set(found)


def test_a_schedule_says_when_a_term_does_nothing() -> None:
    idle = {"pkd": {"weight": 1.0, "schedule": {"stop": 1e-9}}}
    assert "run.silenced" not in judge(record(weights=[0.0] * 20, term=[0.0] * 20), terms=idle)
    fading = {"pkd": {"schedule": {"decay": "cosine"}}}
    assert "run.held_back" not in judge(record(weights=[6.0 / (1 + index) for index in range(20)]), terms=fading)
