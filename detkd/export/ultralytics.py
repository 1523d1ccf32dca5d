"""A YOLO as something to export: ONNX and TorchScript by ultralytics' own exporter, with its metadata in the file."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.adapters.ultralytics import load_yolo, quiet
from detkd.errors import ConfigError
from detkd.export.exportable import Exportable
from detkd.export.samples import pictures

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.export.exportable import FormatName


def exportable_yolo(weights: Path, imgsz: int | None) -> Exportable:
    """A student of ultralytics.

    Its first output has for each place 4 numbers of a box in pixels and a score of each class, [B, 4 + C, A]; of a
    segmenter coefficients of masks, too, whose prototypes are the second output.

    Args:
        weights: Its checkpoint.
        imgsz: Side of its input in pixels; None for the one that it was trained at.

    Raises:
        ConfigError: If its stride does not divide the size.
    """
    model: Any = load_yolo(weights).model.float().eval()
    stride, size = int(model.stride.max()), imgsz or int(model.args["imgsz"])
    if size % stride:
        raise ConfigError(f"--imgsz: expected a multiple of {stride} pixels, but got {size}.")
    model.model[-1].export = True  # outputs without the raw ones beside them
    names = ("output0", "output1") if hasattr(model.model[-1], "proto") else ("output0",)
    return Exportable(
        model,
        sample=partial(pictures, size),
        outputs=names,
        sizes={0: ("batch", 1), 2: ("height", stride), 3: ("width", stride)},
        writers={name: partial(_write, weights, size, name) for name in ("onnx", "torchscript")},
    )


def _write(
    weights: Path, imgsz: int, name: FormatName, student: Exportable, path: Path, example: Tensor, dynamic: bool
) -> None:
    # Its tracing exporter of ONNX, not torch.export's: that is the one whose files its own runtimes are tested with.
    with tempfile.TemporaryDirectory() as folder, quiet():
        copy = Path(folder, "student.pt")  # it writes beside the checkpoint
        shutil.copyfile(weights, copy)
        made = load_yolo(copy).export(
            format=name,
            imgsz=imgsz,
            batch=len(example),
            dynamic=dynamic,
            device="cpu",
            verbose=False,
            **({"simplify": False} if name == "onnx" else {}),  # onnxruntime does so when it loads the file
        )
        shutil.move(made, path)
