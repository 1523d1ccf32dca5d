r"""Train the same student by several recipes on the same seeds, and say what each gained.

    detkd compare --config configs/FAMILY/NAME.yaml [--recipes FILE.yaml] [--seeds 0,1,2] [--only NAME,NAME]
        [--jobs N] [key=value ...]

The first recipe of the file is the baseline. Without --recipes the file is that of configs/recipes/ for the student:
yolo.yaml, faster_rcnn.yaml, unet.yaml, classification.yaml of pictures, or text.yaml. What an earlier call has finished
is reused, and what was cut short is resumed. Everything is kept in OUTPUT/NAME/: the table as comparison.json and
comparison.md, and each run's own folder. With --grid the runs go through the values of a key, or of two, instead, and what
each gained over the baseline is drawn in grid.png.

Examples:
    detkd compare --config configs/yolo/yolov5n-femto_from_yolov5n.yaml --seeds 0,1,2 \
        data=DATA.yaml distill.teacher.weights=runs/teacher/student.pt
    detkd compare --config configs/faster_rcnn/mobilenet_small_from_yolov5n.yaml --only pkd-regions,labels \
        data=DATA.yaml distill.teacher.weights=runs/teacher/student.safetensors
    detkd compare --config configs/classification/cnn_from_resnet18.yaml --grid distill.terms.soft_kl.temperature=1,2,4,8 \
        --grid distill.terms.soft_kl.weight=0.5,1,2 data=DATA distill.teacher.weights=runs/teacher/student.safetensors
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, speaking
from detkd.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from detkd.model_config import ModelConfig

OF_FAMILIES = {"yolo": "yolo.yaml", "unet": "unet.yaml", "classifier": "classification.yaml", "text": "text.yaml"}


def recipes_for(student: ModelConfig) -> Path:
    """The recipes to compare where none are given: those that fit the student.

    Raises:
        ConfigError: If there are none.
    """
    from detkd.model_config import TWO_STAGE
    from detkd.shipped import shipped_configurations

    folder = shipped_configurations() / "recipes"
    if student.family in OF_FAMILIES:
        return folder / OF_FAMILIES[student.family]
    if student.architecture.startswith(TWO_STAGE):
        return folder / "faster_rcnn.yaml"
    raise ConfigError(
        f"--recipes: expected a file for a student of {student.model or student.weights}; those in {folder} are for YOLO, "
        "U-Net and, by its name in student.model, Faster R-CNN."
    )


def names(text: str) -> list[str]:
    """Split at commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str) -> list[int]:
    """Whole numbers between commas."""
    return [int(part) for part in names(text)]


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd compare", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="YAML file of one run, see configs/")
    parser.add_argument("--recipes", type=Path, help="YAML file (default: the one of configs/recipes/ for the student)")
    parser.add_argument("--only", type=names, default=[], metavar="NAME,NAME", help="recipes to run beside the baseline")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=A,B",
        help="values of a key, for recipes; twice for a table",
    )
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], metavar="N,N", help="(default: 0,1,2)")
    parser.add_argument("--split", help="split whose metrics are compared (default: the last one evaluated)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at the same time")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of every run")
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, and compare."""
    arguments = build_parser().parse_intermixed_args(argv)

    with speaking(arguments):
        from detkd.config import load_config
        from detkd.engines.compare import plan_comparison, run_comparison
        from detkd.engines.grid import parse_grid

        recipes = arguments.recipes
        if recipes is None:
            recipes = recipes_for(load_config(arguments.config, arguments.overrides).student)
        comparison = plan_comparison(
            arguments.config,
            recipes,
            seeds=arguments.seeds,
            only=arguments.only,
            overrides=arguments.overrides,
            split=arguments.split,
            grid=parse_grid(arguments.grid),
        )
        run_comparison(comparison, jobs=max(arguments.jobs, 1))
