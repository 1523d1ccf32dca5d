"""The formats: how a student is written to each, and how it is called again from there."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from detkd.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from detkd.export.exportable import Exportable, FormatName

SUFFIXES: dict[FormatName, str] = {"onnx": ".onnx", "torchscript": ".torchscript", "torch_export": ".pt2"}
LARGEST = 4096  # of a dimension that may vary, in multiples of what it must be a multiple of


def write(student: Exportable, name: FormatName, path: Path, example: Tensor, *, dynamic: bool) -> None:
    """Write a student.

    Args:
        student: The student.
        name: The format.
        path: Where to; its suffix is the format's.
        example: An input.
        dynamic: Whether the dimensions of ``student.sizes`` may vary, or all are the example's.

    Raises:
        ExportError: If the student cannot have the format.
    """
    with _hushed(), torch.no_grad():
        try:
            student.writers.get(name, _WRITERS[name])(student, path, example, dynamic)
        except Exception as error:  # whatever torch, or a package below it, could not follow
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            others = [other for other in SUFFIXES if other not in {name, *student.refused}]
            raise ExportError(f"{name}: the model cannot be exported so: {reason} Try {' or '.join(others)}.") from error


def load(name: FormatName, path: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Read what :func:`write` wrote, as a function from an input to all outputs.

    ONNX is run by onnxruntime, on as many threads as torch.
    """
    if name == "onnx":
        return _load_onnx(path)
    with _hushed():
        model: Any = torch.jit.load(str(path)) if name == "torchscript" else torch.export.load(path).module()
    return lambda inputs: as_tuple(model(inputs))


def as_tuple(outputs: Any) -> tuple[Tensor, ...]:
    """The tensors that a model returns, one or several."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _write_onnx(student: Exportable, path: Path, example: Tensor, dynamic: bool) -> None:
    names: Any = {"input_names": [student.input_name], "output_names": list(student.outputs)}
    if student.traced_onnx:
        axes = {student.input_name: {axis: size for axis, (size, _) in student.sizes.items()}} if dynamic else None
        torch.onnx.export(student.model, (example,), str(path), dynamo=False, dynamic_axes=axes, **names)
        return
    shapes = _shapes(student) if dynamic else None
    torch.onnx.export(
        student.model, (example,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, **names
    )


def _write_torchscript(student: Exportable, path: Path, example: Tensor, dynamic: bool) -> None:
    # Traced, since not all models can be scripted: sizes are followed as such, and so are torchvision's ops.
    traced: Any = torch.jit.trace(student.model, (example,), check_trace=False)
    traced.save(str(path))


def _write_torch_export(student: Exportable, path: Path, example: Tensor, dynamic: bool) -> None:
    shapes = _shapes(student) if dynamic else None
    torch.export.save(torch.export.export(student.model, (example,), dynamic_shapes=shapes, strict=False), path)


_WRITERS: dict[FormatName, Callable[[Exportable, Path, Tensor, bool], None]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "torch_export": _write_torch_export,
}


def _shapes(student: Exportable) -> tuple[dict[int, Any]]:
    """Dimensions that may vary, in the words of torch.export."""
    return (
        {axis: multiple * torch.export.Dim(size, min=1, max=LARGEST) for axis, (size, multiple) in student.sizes.items()},
    )


def _load_onnx(path: Path) -> Callable[[Tensor], tuple[Tensor, ...]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def run(inputs: Tensor) -> tuple[Tensor, ...]:
        found = session.run(None, {entry.name: inputs.numpy()})
        return tuple(torch.from_numpy(cast("Any", array)) for array in found)

    return run


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep exporters to what they raise: they warn of their own ways, and print whole graphs where they fail."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
