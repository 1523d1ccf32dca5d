r"""Make the cache of a teacher's outputs that a run then reads instead of running the teacher.

    detkd cache-teacher --config configs/FAMILY/NAME.yaml [key=value ...]

The configuration is that of the run, with distill.teacher.cache set; student and teacher may be of any two families. Run it
again after an interruption: it makes what is missing or damaged. Several processes may make one cache together.

Examples:
    detkd cache-teacher --config configs/yolo/yolov5n-femto_from_yolov5n.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.pt distill.teacher.cache=runs/cache
    detkd cache-teacher --config configs/faster_rcnn/mobilenet_small_from_yolov5n.yaml data=DATA.yaml \
        distill.teacher.weights=runs/teacher/student.safetensors distill.teacher.cache=runs/cache
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, speaking

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd cache-teacher", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. distill.teacher.views=16")
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the caches."""
    arguments = build_parser().parse_intermixed_args(argv)

    with speaking(arguments):
        from detkd.config import load_config
        from detkd.engines.caching import cache_teachers
        from detkd.report.reporter import reporter

        folders = [str(folder) for folder in cache_teachers(load_config(arguments.config, arguments.overrides))]
        reporter().result({"event": "result", "folders": folders}, *folders)
