"""A sound configuration of each family, with a teacher that was trained for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detkd.engines.families import FAMILIES, build_model
from detkd.engines.tasks import task_of
from tests.engines.classes import configure_classes, configure_text, write_pictures, write_sentences
from tests.engines.conftest import TINY_RCNN, configure, configure_rcnn
from tests.engines.segmented import TINY_UNET, configure_unet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from detkd.config import RunConfig

FAST = {"lr": 0.01, "warmup_epochs": 0, "schedule": "constant"}


def train_teacher(config: RunConfig, folder: Path) -> Path:
    """The student of a run without a teacher, by its engine; nothing is evaluated at the end."""
    family = FAMILIES[config.family]
    dataset = task_of(config).load_data(config)
    tokenizer = getattr(dataset, "tokenizer", None)
    student, _ = build_model(config.student, dataset.names, role="student", imgsz=config.train.imgsz, tokenizer=tokenizer)
    return family.engine.train(student, None, config, dataset, folder, resume=False).checkpoint


def pictures(data: Path, folder: Path) -> RunConfig:
    """A classifier of three colours."""
    root = write_pictures(folder / "pictures", {"train": 16, "val": 8, "test": 2})
    own: dict[str, Any] = {"train": {"epochs": 5, "imgsz": 32, "batch": 8}, "optim": FAST}
    teacher = train_teacher(configure_classes(root, student={"model": "cnn", "width": 0.5}, **own), folder)
    distill = {"teacher": {"weights": str(teacher)}, "terms": {"soft_kl": {}, "at": {}}}
    return configure_classes(root, distill=distill, train={"epochs": 200, "imgsz": 32, "batch": 8})


def sentences(data: Path, folder: Path) -> RunConfig:
    """A classifier of sentences, of which a word says the class."""
    (folder / "sentences").mkdir(parents=True)
    root = write_sentences(folder / "sentences", {"train": 64, "dev": 32, "test": 4})
    own: dict[str, Any] = {"train": {"epochs": 8, "imgsz": 32, "batch": 16}, "optim": FAST}
    teacher = train_teacher(configure_text(root, student={"model": "lstm", "width": 0.25}, **own), folder)
    distill = {"teacher": {"weights": str(teacher)}, "terms": {"soft_kl": {}}}
    return configure_text(root, distill=distill, train={"epochs": 200, "imgsz": 32, "batch": 16})


def unet(discs: Path, folder: Path) -> RunConfig:
    """A U-Net of discs."""
    own: dict[str, Any] = {"student": {**TINY_UNET, "width": 0.5}, "train": {"epochs": 12, "imgsz": 64, "batch": 2}}
    teacher = train_teacher(configure_unet(discs, **own, optim={**FAST, "judge_every": 12}), folder)
    distill = {"teacher": {"weights": str(teacher)}, "terms": {"pixel_kl": {}, "pkd": {}}}
    return configure_unet(discs, distill=distill, train={"epochs": 300, "imgsz": 64, "batch": 4})


def yolo(data: Path, folder: Path) -> RunConfig:
    """A YOLO of a disc and a square."""
    how = {"optimizer": "AdamW", "lr0": 0.01, "warmup_epochs": 0, "mosaic": 0.0, "val": False, "close_mosaic": 0}
    still = {"scale": 0.0, "translate": 0.0, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    own: dict[str, Any] = {"student": {"model": "yolov5n.yaml", "width": 0.125}, "distill": None}
    train = {"epochs": 60, "imgsz": 64, "batch": 4}
    teacher = train_teacher(configure(data, **own, train=train, trainer={**how, **still}), folder)
    distill = {"teacher": {"weights": str(teacher)}, "terms": {"bckd": {}, "pkd": {}}}
    return configure(data, distill=distill, train={"epochs": 500, "imgsz": 64, "batch": 4})


def rcnn(data: Path, folder: Path) -> RunConfig:
    """A Faster R-CNN of the same."""
    own: dict[str, Any] = {"student": {**TINY_RCNN, "width": 0.25}, "augment": []}
    train = {"epochs": 30, "imgsz": 64, "batch": 2}
    teacher = train_teacher(configure_rcnn(data, **own, train=train, optim={**FAST, "judge_every": 30}), folder)
    distill = {"teacher": {"weights": str(teacher)}, "terms": {"pkd": {}, "dkd": {"beta": 0.25, "temperature": 1.0}}}
    return configure_rcnn(data, distill=distill, train={"epochs": 500, "imgsz": 64, "batch": 4})


FAMILIES_BY_DATA: dict[Callable[[Path, Path], RunConfig], str] = {
    pictures: "data",
    sentences: "data",
    unet: "discs",
    yolo: "data",
    rcnn: "data",
}
