"""Draw the built-in detection data set: textured shapes on textured backgrounds, with boxes and masks.

python tools/make_synthetic.py FOLDER [--train 600 --val 150 --test 300 --size 192 --seed 0] [--polygons]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detkd.cli import run


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder of the data set")
    for split, count in (("train", 600), ("val", 150), ("test", 300)):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"pictures to {split} on (default {count})")
    parser.add_argument("--size", type=int, default=192, help="side of the pictures in pixels (default 192)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--polygons", action="store_true", help="YOLO labels as polygons, for ultralytics' segmenters")
    arguments = parser.parse_args()

    from detkd.data.synthetic import SPLITS, write_synthetic

    counts = {split: getattr(arguments, split) for split in SPLITS}
    path = write_synthetic(arguments.folder, counts, size=arguments.size, seed=arguments.seed, polygons=arguments.polygons)
    print(path)


if __name__ == "__main__":
    run(main)
