"""Classes, strides and sizes that fit, and such that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detkd.doctor.fit import check_fit
from detkd.engines.families import build_model
from tests.doctor.conftest import by_code
from tests.engines.conftest import NAMES, configure, configure_rcnn
from tests.engines.segmented import configure_unet

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.config import RunConfig
    from detkd.doctor.findings import Finding


def look(config: RunConfig, teacher_names: tuple[str, ...] = NAMES, names: tuple[str, ...] = NAMES) -> dict[str, Finding]:
    """The findings on the models of a run."""
    size = config.train.imgsz
    assert config.distill is not None
    student, _ = build_model(config.student, names, role="student", imgsz=size)
    teachers = [
        build_model(spec, teacher_names, role="teacher", imgsz=round(size * spec.scale))[0]
        for spec in config.distill.all_teachers
    ]
    return by_code(check_fit(student, teachers, config))


def taught(**spec: Any) -> dict[str, Any]:
    return {"teacher": {"model": "yolov5n.yaml", "width": 0.0625, **spec}, "terms": {"pkd": {}}}


def test_models_of_one_family_fit(data: Path) -> None:
    found = look(configure(data, distill=taught()))
    assert [finding.severity for finding in found.values()] == ["ok"]


def test_classes_that_do_not_map_are_named(data: Path) -> None:
    found = look(configure(data, distill=taught()), teacher_names=("ring", "cross"))["fit.classes"]
    assert found.severity == "warning"
    assert "nothing of ['disc', 'square']" in found.detail
    assert "'ring'" in found.detail
    assert "distill.teacher.classes" in found.fix


def test_a_class_that_is_left_out_is_named(data: Path) -> None:
    found = look(configure(data, distill=taught(classes={"disc": "ring"})), teacher_names=("ring", "cross"))
    assert "nothing of ['square']" in found["fit.classes"].detail
    mapped = taught(classes={"disc": "ring", "square": "cross"})
    assert "fit.classes" not in look(configure(data, distill=mapped), teacher_names=("ring", "cross"))


def test_a_map_to_a_class_that_is_not_there_is_an_error(data: Path) -> None:
    found = look(configure(data, distill=taught(classes={"disc": "oval"})))["fit.refused"]
    assert found.severity == "error"
    assert "['oval']" in found.detail


def test_levels_that_meet_none_are_a_note(data: Path, finding_yolo: Path, discs: Path) -> None:
    found = look(configure(data, distill=taught(scale=2.0)))["fit.levels"]
    assert found.severity == "note"
    assert "[32] meet none" in found.detail  # strides 8 and 16 meet 16 and 32 of twice the size
    config = configure_unet(discs, distill={"teacher": {"weights": str(finding_yolo)}, "terms": {"pkd": {}}})
    assert "[2, 4] meet none" in look(config, names=("disc",))["fit.levels"].detail


def test_a_teacher_that_was_trained_on_larger_pictures_is_named(data: Path, rcnn_teacher: Path) -> None:
    distill = {"teacher": {"weights": str(rcnn_teacher)}, "terms": {"pkd": {}}}
    assert "fit.size" not in look(configure_rcnn(data, distill=distill))
    large = configure_rcnn(data, distill=distill, train={"epochs": 1, "imgsz": 256, "batch": 2})
    found = look(large)["fit.size"]
    assert found.severity == "warning"
    assert "trained at 64 pixels, it sees 256" in found.detail
