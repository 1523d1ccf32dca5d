r"""Train a compact U-Net, with or without the help of a teacher.

    python tools/train_seg.py --config configs/unet/NAME.yaml [--resume] [key=value ...]

The teacher may be a U-Net, a YOLO (better a segmenting one), or a Faster or Mask R-CNN. Lightning trains the student.

Examples:
    # a teacher: the same command without distillation
    python tools/train_seg.py --config configs/unet/unet_resnet18.yaml data=DATA.yaml name=teacher
    # a student that learns from it
    python tools/train_seg.py --config configs/unet/unet_from_unet.yaml data=DATA.yaml name=student \
        distill.teacher.weights=runs/teacher/student.safetensors
    # one that learns from a detector
    python tools/train_seg.py --config configs/unet/unet_from_yolo.yaml data=DATA.yaml name=student \
        distill.teacher.weights=runs/YOLO/student.pt
"""

from __future__ import annotations

from detkd.cli import run, train


def main() -> None:
    """Train, evaluate and report."""
    train("segment", __doc__)


if __name__ == "__main__":
    run(main)
