"""Teachers that lead, and such that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from detkd.data.detection import DetectionDataset
from detkd.doctor.sampling import choose, portions
from detkd.doctor.teacher import check_teachers
from detkd.engines.run import build_models
from detkd.engines.tasks import task_of
from tests.doctor.conftest import by_code
from tests.engines.classes import configure_classes, configure_text, write_pictures, write_sentences

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.config import RunConfig
    from detkd.doctor.findings import Finding

TERMS = {"soft_kl": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 4, "val": 40, "test": 2})


class Knowing(nn.Module):
    """Stands before a classifier's last layer: of a share of the pictures it sees the colour, of the others the reverse."""

    def __init__(self, share: float, step: int) -> None:
        super().__init__()
        self.share, self.step = share, step

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        red, green, blue = pictures.mean((2, 3)).unbind(1)
        known = torch.stack((blue, green, red), 1)  # the order of the classes' names
        fooled = torch.arange(len(pictures)) % self.step >= round(self.step * self.share)
        return torch.where(fooled[:, None], -known, known)


def knowing(model: Any, share: float, step: int) -> Any:
    """A model whose answers are right on a share of the pictures."""
    head = model.get_submodule(model.taps.head)
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    head.register_forward_hook(lambda module, inputs, output: Knowing(share, step)(seen.pop()))
    return model


def compare(root: Path, teacher: float, student: float, step: int = 10) -> dict[str, Finding]:
    """The findings on a teacher and a student that are right on such shares of the pictures."""
    train = {"epochs": 2, "imgsz": 32, "batch": 30}  # a portion at a time
    config = configure_classes(root, distill={"teacher": {"model": "cnn"}, "terms": TERMS}, train=train)
    dataset = task_of(config).load_data(config)
    own, teachers, _ = build_models(config, dataset)
    # The student counts as trained: its weights are given.
    config = config.model_copy(update={"student": config.student.model_copy(update={"weights": root / "given"})})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detkd.doctor.teacher.copy.deepcopy", lambda model: model)  # the hooks stay
        return by_code(
            check_teachers(knowing(own, student, step), [knowing(teachers[0], teacher, step)], config, dataset, seconds=60)
        )


def test_a_teacher_that_leads_is_in_order(root: Path) -> None:
    found = compare(root, teacher=1.0, student=0.5)["teacher"]
    assert found.severity == "ok"
    assert "accuracy on 120 of `val`" in found.detail  # four portions of thirty
    assert "95 % interval" in found.detail


def test_a_teacher_that_leads_by_little_is_named(root: Path) -> None:
    """Of thirty pictures it knows 24, and the student 23."""
    found = compare(root, teacher=0.8, student=0.7667, step=30)["teacher.close"]
    assert found.severity == "warning"
    assert "a lead of 0.033" in found.detail
    assert "smaller student" in found.fix


def test_a_teacher_that_is_worse_is_named(root: Path) -> None:
    found = compare(root, teacher=0.5, student=0.9)["teacher.no_better"]
    assert found.severity == "error"
    assert "0.500 against 0.900 of the student, a lead of -0.400" in found.detail
    assert "distill=null" in found.fix


def test_a_teacher_of_one_class_fewer_is_not_blamed_for_it(root: Path) -> None:
    config = configure_classes(
        root, distill={"teacher": {"model": "cnn", "classes": {"red": "red"}}, "terms": {"soft_kl": {}}}
    )
    dataset = task_of(config).load_data(config)
    own, teachers, _ = build_models(config, dataset)
    teachers[0].class_names = ("red", "yellow", "pink")
    assert set(by_code(check_teachers(own, teachers, config, dataset, seconds=60))) == {"teacher.unsure"}


def test_an_untrained_teacher_of_an_untrained_student_is_named(root: Path) -> None:
    config = configure_classes(root, distill={"teacher": {"model": "cnn"}, "terms": TERMS})
    dataset = task_of(config).load_data(config)
    own, teachers, _ = build_models(config, dataset)
    found = by_code(check_teachers(own, teachers, config, dataset, seconds=60))["teacher.no_better"]
    assert "untrained" in found.cause
    assert "the student before training" in found.detail


def test_an_average_of_the_student_is_no_teacher_to_compare(root: Path) -> None:
    spec = {"ema": 0.9, "mirrored": True}
    config = configure_classes(root, distill={"teacher": spec, "terms": {"consistency": {}}})
    dataset = task_of(config).load_data(config)
    own, teachers, _ = build_models(config, dataset)
    assert not check_teachers(own, teachers, config, dataset, seconds=60)


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(100, 8, [8] * 6), (40, 8, [8] * 5), (10, 8, [2] * 4), (3, 8, [1] * 3), (1, 8, [1])]
)
def test_portions_are_disjoint_and_spread(count: int, size: int, lengths: list[int]) -> None:
    found = portions(count, size=size, most=6)
    assert [len(portion) for portion in found] == lengths
    places = [place for portion in found for place in portion]
    assert len(set(places)) == len(places)
    assert set(places) <= set(range(count))
    assert all(portion[-1] >= count // 2 for portion in found if len(portion) > 1)


def test_chosen_images_keep_their_labels(data: Path) -> None:
    chosen = choose(DetectionDataset.load(data), "val", [1, 3])
    assert [path.name for path in chosen.images("val")] == ["1.png", "3.png"]
    assert [image.path.name for image in chosen.annotated("val")] == ["1.png", "3.png"]
    truth = chosen.coco("val")
    assert [image["file_name"].rsplit("/", 1)[-1] for image in truth["images"]] == ["1.png", "3.png"]
    assert len(truth["annotations"]) == 4
    assert {one["image_id"] for one in truth["annotations"]} == {image["id"] for image in truth["images"]}
    assert len(chosen.images("train")) == 4
    assert chosen.names == ("disc", "square")


def test_chosen_samples_keep_their_classes(root: Path, tmp_path: Path) -> None:
    def load(config: RunConfig) -> Any:
        return task_of(config).load_data(config)

    dataset = load(configure_classes(root))
    part, chosen = dataset.parts["val"], choose(dataset, "val", [0, 50, 100]).parts["val"]
    assert chosen.names == tuple(part.names[place] for place in (0, 50, 100))
    assert chosen.labels.tolist() == [0, 1, 2]
    assert np.array_equal(chosen.pixels[1], part.pixels[50])

    texts = load(configure_text(write_sentences(tmp_path, {"train": 8, "dev": 6, "test": 4})))
    part, chosen = texts.parts["val"], choose(texts, "val", [1, 4]).parts["val"]
    assert chosen.texts == (part.texts[1], part.texts[4])
    assert chosen.labels.tolist() == [1, 0]
    assert len(chosen.ids) == 2
