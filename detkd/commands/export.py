r"""Write a student in formats that run without detkd: ONNX, TorchScript, torch.export.

    detkd export --weights FILE [--format NAME,NAME] [--output FOLDER] [--imgsz N] [--batch N] [--dynamic]
        [--picture FILE]

What was written is read back, called with random inputs and the pictures given, and compared with the student; beyond the
tolerance nothing is kept. The table shows the largest difference, and the time of a batch beside the student's own.

Examples:
    detkd export --weights runs/student/student.pt
    # for pictures of any number and size
    detkd export --weights runs/student/student.safetensors --format onnx,torch_export --dynamic
    # compared on a picture that shows something, too
    detkd export --weights runs/student/student.safetensors --format onnx,torchscript --picture cells.png --output deploy
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import TYPE_CHECKING

from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, speaking

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.table import Table

    from detkd.export.exporting import Exported

FORMATS = ("onnx", "torchscript", "torch_export")


def formats(text: str) -> list[str]:
    """Names of formats between commas."""
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if unknown := set(names) - set(FORMATS):
        raise ArgumentTypeError(f"expected some of {','.join(FORMATS)}, but got {','.join(sorted(unknown))}")
    return names


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd export", description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="a run's student.pt or student.safetensors")
    parser.add_argument(
        "--format", type=formats, default=["onnx"], metavar="NAME,NAME", help=f"of {', '.join(FORMATS)} (default: onnx)"
    )
    parser.add_argument("--output", type=Path, help="folder of the files (default: the one of the weights)")
    parser.add_argument("--imgsz", type=int, help="side of the input in pixels (default: as it was trained)")
    parser.add_argument("--batch", type=int, default=1, help="pictures or sentences at a time (default: 1)")
    parser.add_argument("--dynamic", action="store_true", help="let that number vary, and the pictures' size where it can")
    parser.add_argument(
        "--picture", type=Path, action="append", default=[], help="a file to compare on, too, as often as wanted"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-3,
        help="largest difference allowed, as a share of an output's largest value where that is above 1 (default: 0.001)",
    )
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Export, and show what was measured."""
    arguments = build_parser().parse_args(argv)
    with speaking(arguments):
        from dataclasses import asdict

        from detkd.export.exporting import export_student
        from detkd.report.reporter import reporter

        exported, milliseconds = export_student(
            arguments.weights,
            arguments.format,
            arguments.output or arguments.weights.parent,
            imgsz=arguments.imgsz,
            batch=arguments.batch,
            dynamic=arguments.dynamic,
            pictures=arguments.picture,
            tolerance=arguments.tolerance,
        )
        if not any(one.found for one in exported):
            reporter().note("nothing was found on the inputs compared: give a --picture that shows objects")
        record = {one.name: {**asdict(one), "path": str(one.path)} for one in exported}
        paths = [str(one.path) for one in exported]
        table = _table(exported, milliseconds, arguments.batch)
        reporter().result({"event": "result", "milliseconds": milliseconds, "formats": record}, table, *paths)


def _table(exported: Sequence[Exported], milliseconds: float, batch: int) -> Table:
    import torch
    from rich.table import Table

    threads = torch.get_num_threads()
    table = Table(title=f"batches of {batch}, CPU, {threads} thread{'s' if threads > 1 else ''}")
    for heading in ("format", "MB", "largest difference", "ms", "x student"):
        table.add_column(heading, justify="left" if heading == "format" else "right")
    table.add_row("student", "", "", f"{milliseconds:.2f}", "")
    for one in exported:
        times = f"{one.milliseconds / milliseconds:.2f}"
        table.add_row(one.name, f"{one.megabytes:.2f}", f"{one.difference:.1e}", f"{one.milliseconds:.2f}", times)
    return table
