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

import argparse
from pathlib import Path

from detkd.cli import run
from detkd.config import load_config


def main() -> None:
    """Parse the command line, train, evaluate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.seed=1 distill=null")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut short")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)

    from detkd.engines.detection import run_detection

    run_detection(config, resume=arguments.resume)


if __name__ == "__main__":
    run(main)
