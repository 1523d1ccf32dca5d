"""The export of a student: written, read back, compared with the student, timed, and only then put in its place."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from detkd.errors import ConfigError, ExportError
from detkd.evaluation.cost import median_times
from detkd.export.differences import detection_difference, difference
from detkd.export.formats import SUFFIXES, as_tuple, load, write
from detkd.export.samples import read_square
from detkd.export.students import load_student
from detkd.files import copy_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from detkd.export.exportable import Exportable, FormatName

TOLERANCE = 1e-3
EAGER = "student"  # in tables of times
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """A student in a format.

    Attributes:
        name: The format.
        path: Its file.
        megabytes: Size of the file, 10⁶ bytes.
        difference: Largest difference from the student on any input that was tried, see :mod:`detkd.export.differences`.
        milliseconds: Median time of one batch on the CPU.
        found: Numbers in all outputs of the student on these inputs: without any, nothing was compared.
    """

    name: FormatName
    path: Path
    megabytes: float
    difference: float
    milliseconds: float
    found: int


def export_student(
    weights: Path,
    formats: Sequence[FormatName],
    folder: Path,
    *,
    imgsz: int | None = None,
    batch: int = 1,
    dynamic: bool = False,
    pictures: Sequence[Path] = (),
    tolerance: float = TOLERANCE,
) -> tuple[list[Exported], float]:
    """Export a student, and check that what was exported says what the student says.

    It is called with two random inputs and with the pictures given; with `dynamic` also with a larger batch, of larger
    pictures where their size may vary.

    Args:
        weights: A run's ``student.pt`` or ``student.safetensors``.
        formats: Names out of :data:`detkd.export.formats.SUFFIXES`.
        folder: Where the files go, called as the checkpoint.
        imgsz: Side of the input in pixels; None for the one that the student was trained at.
        batch: Pictures or sentences at a time.
        dynamic: Whether that number, and the size of pictures where the student takes any, may vary.
        pictures: Files to compare on, too.
        tolerance: Largest difference allowed, see :mod:`detkd.export.differences`.

    Returns:
        What was exported, and the student's own median time in milliseconds.

    Raises:
        ConfigError: If an argument does not fit the student, or a package is missing.
        WeightsError: If there is no such checkpoint.
        ExportError: If the student cannot have a format, or what was exported says something else; no file is left then.
    """
    student = load_student(weights, imgsz)
    _check_arguments(student, formats, batch, dynamic, pictures)
    apart = detection_difference if student.detections else difference
    with torch.random.fork_rng(), torch.no_grad(), tempfile.TemporaryDirectory() as temporary:
        torch.manual_seed(0)
        inputs = _inputs(student, batch, dynamic, pictures)
        wanted = [as_tuple(student.model(each)) for each in inputs]
        example = student.sample(2, 2) if dynamic else inputs[0]  # torch.export takes a dimension of 1 for a constant
        calls: dict[str, Callable[[], object]] = {EAGER: partial(student.model, inputs[0])}
        differences = {}
        for name in formats:
            path = Path(temporary, f"{weights.stem}{SUFFIXES[name]}")
            write(student, name, path, example, dynamic=dynamic)
            call = load(name, path)
            found = [call(each) for each in inputs]
            differences[name] = max(apart(*pair) for pair in zip(found, wanted, strict=True))
            if not differences[name] <= tolerance:
                raise ExportError(
                    f"{name}: expected outputs that differ from the student's by {tolerance:g} of their size at most, but "
                    f"they differ by {differences[name]:.3g}. Take another format, or allow it by --tolerance."
                )
            calls[name] = partial(call, inputs[0])
        times = median_times(calls)
        exported = []
        for name in formats:
            source, target = (Path(place, f"{weights.stem}{SUFFIXES[name]}") for place in (temporary, folder))
            copy_file(source, target)
            megabytes, numbers = target.stat().st_size / 1e6, sum(each.numel() for one in wanted for each in one)
            exported.append(Exported(name, target, megabytes, differences[name], times[name], numbers))
    return exported, times[EAGER]


def _inputs(student: Exportable, batch: int, dynamic: bool, pictures: Sequence[Path]) -> list[Tensor]:
    inputs = [student.sample(batch, 1), student.sample(batch, 1)]
    if dynamic:
        inputs.append(student.sample(batch + 1, 2))
    side = inputs[0].shape[-1]
    return inputs + [read_square(picture, side).repeat(batch, 1, 1, 1) for picture in pictures]


def _check_arguments(
    student: Exportable, formats: Sequence[FormatName], batch: int, dynamic: bool, pictures: Sequence[Path]
) -> None:
    missing = [name for name in ONNX_PACKAGES if find_spec(name) is None] if "onnx" in formats else []
    if missing:
        raise ConfigError(f"onnx: {', '.join(missing)} is not installed: pip install 'detkd[export]'.")
    for name in formats:
        if name in student.refused:
            raise ExportError(f"{name}: {student.refused[name]}")
    if batch < 1 or (student.batch is not None and batch != student.batch):
        raise ConfigError(f"--batch: expected {student.batch or 'a number from 1'} for this student, but got {batch}.")
    if dynamic and not student.sizes:
        raise ConfigError("--dynamic: this student takes one picture of one size; leave it out, and choose by --imgsz.")
    if pictures and student.input_name != "images":
        raise ConfigError("--picture: this student reads sentences; leave it out.")
