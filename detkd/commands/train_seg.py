r"""Train a compact U-Net, with or without the help of a teacher.

    detkd train-seg --config configs/unet/NAME.yaml [--resume] [key=value ...]

The teacher may be a U-Net, a YOLO (better a segmenting one), or a Faster or Mask R-CNN. Lightning trains the student.

Examples:
    # a teacher: the same command without distillation
    detkd train-seg --config configs/unet/unet_resnet18.yaml data=DATA.yaml name=teacher
    # a student that learns from it
    detkd train-seg --config configs/unet/unet_from_unet.yaml data=DATA.yaml name=student \
        distill.teacher.weights=runs/teacher/student.safetensors
    # one that learns from a detector
    detkd train-seg --config configs/unet/unet_from_yolo.yaml data=DATA.yaml name=student \
        distill.teacher.weights=runs/YOLO/student.pt
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.commands.training import train, training_parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

TASK = "segment"


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    return training_parser(TASK, __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate and report."""
    train(TASK, build_parser(), argv)
