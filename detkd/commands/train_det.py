r"""Train a compact detector, with or without the help of a teacher.

    detkd train-det --config configs/FAMILY/NAME.yaml [--resume] [key=value ...]

Student and teacher may be a YOLO, which ultralytics trains, or a detector of torchvision, which Lightning trains.

Examples:
    # a teacher: the same command without distillation
    detkd train-det --config configs/yolo/yolov5n.yaml data=DATA.yaml name=teacher
    # a student that learns from it
    detkd train-det --config configs/yolo/yolov5n-femto_from_yolov5n.yaml data=DATA.yaml name=student \
        distill.teacher.weights=runs/teacher/student.pt
    # a Faster R-CNN that learns from one, and from a YOLO
    detkd train-det --config configs/faster_rcnn/mobilenet_small_from_yolov5n.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.safetensors
    detkd train-det --config configs/faster_rcnn/mobilenet_small_from_yolo.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.pt
    # a detector of torchvision on two GPUs
    torchrun --nproc-per-node 2 -m detkd train-det --config configs/faster_rcnn/NAME.yaml train.device=0,1 \
        "trainer={strategy: ddp}"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.commands.training import train, training_parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

TASK = "detect"


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    return training_parser(TASK, __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate and report."""
    train(TASK, build_parser(), argv)
