"""Draw the built-in detection data set: textured shapes on textured backgrounds, with boxes and masks.

    detkd make-synthetic FOLDER [--train 600 --val 150 --test 300 --size 192 --seed 0] [--polygons]

Examples:
    detkd make-synthetic shapes
    # small, for ultralytics' segmenters
    detkd make-synthetic shapes --train 100 --val 20 --test 20 --size 96 --polygons
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
    parser = Parser(prog="detkd make-synthetic", description=__doc__)
    parser.add_argument("folder", type=Path, help="new folder of the data set")
    for split, count in (("train", 600), ("val", 150), ("test", 300)):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"pictures to {split} on (default {count})")
    parser.add_argument("--size", type=int, default=192, help="side of the pictures in pixels (default 192)")
    parser.add_argument("--seed", type=int, default=0, help="(default 0)")
    parser.add_argument("--polygons", action="store_true", help="YOLO labels as polygons, for ultralytics' segmenters")
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Draw."""
    arguments = build_parser().parse_args(argv)

    with speaking(arguments):
        from detkd.data.description import SPLITS
        from detkd.data.synthetic import write_synthetic
        from detkd.report.reporter import reporter

        counts = {split: getattr(arguments, split) for split in SPLITS}
        how = {"size": arguments.size, "seed": arguments.seed, "polygons": arguments.polygons}
        path = write_synthetic(arguments.folder, counts, **how)
        reporter().result({"event": "result", "data": str(path)}, str(path))
