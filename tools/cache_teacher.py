r"""Make the cache of a teacher's outputs that a run then reads instead of running the teacher.

    python tools/cache_teacher.py --config configs/FAMILY/NAME.yaml [key=value ...]

The configuration is that of the run, with distill.teacher.cache set; student and teacher may be of any two families. Run it
again after an interruption: it makes what is missing or damaged. Several processes may make one cache together.

Examples:
    python tools/cache_teacher.py --config configs/yolo/yolov5n-femto_from_yolov5n.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.pt distill.teacher.cache=runs/cache
    python tools/cache_teacher.py --config configs/faster_rcnn/mobilenet_small_from_yolov5n.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.safetensors distill.teacher.cache=runs/cache
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detkd.cli import run
from detkd.config import load_config


def main() -> None:
    """Parse the command line and make the caches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. distill.teacher.views=16")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)

    from detkd.engines.caching import cache_teachers

    for folder in cache_teachers(config):
        print(folder)


if __name__ == "__main__":
    run(main)
