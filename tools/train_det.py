r"""Train a compact detector, with or without the help of a teacher.

    python tools/train_det.py --config configs/FAMILY/NAME.yaml [--resume] [key=value ...]

Student and teacher may be a YOLO, which ultralytics trains, or a detector of torchvision, which Lightning trains.

Examples:
    # a teacher: the same command without distillation
    python tools/train_det.py --config configs/yolo/yolov5n.yaml data=DATA.yaml name=teacher
    # a student that learns from it
    python tools/train_det.py --config configs/yolo/yolov5n-femto_from_yolov5n.yaml data=DATA.yaml name=student \
        distill.teacher.weights=runs/teacher/student.pt
    # a Faster R-CNN that learns from one, and from a YOLO
    python tools/train_det.py --config configs/faster_rcnn/mobilenet_small_from_yolov5n.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.safetensors
    python tools/train_det.py --config configs/faster_rcnn/mobilenet_small_from_yolo.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.pt
    # a detector of torchvision on two GPUs
    torchrun --nproc-per-node 2 tools/train_det.py --config configs/faster_rcnn/NAME.yaml train.device=0,1 \
        "trainer={strategy: ddp}"
"""

from __future__ import annotations

from detkd.cli import run, train


def main() -> None:
    """Train, evaluate and report."""
    train("detect", __doc__)


if __name__ == "__main__":
    run(main)
