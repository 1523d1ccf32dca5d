"""Train a compact detector, with or without the help of a teacher.

    python tools/train_det.py --config configs/yolo/NAME.yaml [--resume] [key=value ...]

Examples:
    # a teacher: the same command without distillation
    python tools/train_det.py --config configs/yolo/yolov5n.yaml data=DATA.yaml name=teacher
    # a student that learns from it
    python tools/train_det.py --config configs/yolo/yolov5n-femto_from_yolov5n.yaml data=DATA.yaml name=student \
        distill.teacher.weights=runs/teacher/student.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detkd.cli import run
from detkd.config import load_config


def main() -> None:
    """Parse the command line, train, evaluate and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/yolo/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.seed=1 distill=null")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut short")
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)

    from detkd.engines.detection import run_detection

    run_detection(config, resume=arguments.resume)


if __name__ == "__main__":
    run(main)
