"""Loading of the compiled extension, and the choice between it and plain PyTorch."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from detkd.errors import ArgumentError, BackendError

if TYPE_CHECKING:
    from torch import Tensor

    from detkd.types import Backend

HOW_TO_BUILD = "Build it with a C++20 compiler: pip install --no-build-isolation 'detkd[dev]', or `make build` in a clone."
FUSED_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Types of devices that the build has a kernel for, of each op; filled in where ops are defined.
_devices: dict[str, frozenset[str]] = {}

_C: Any = None
_load_error: ImportError | None = None
try:
    _C = import_module("detkd._C")
except ImportError as error:  # not built, or built for another torch: kept, and said when it matters
    _load_error = error


def load_error() -> ImportError | None:
    """Return why the extension is missing, or None where it is loaded."""
    return _load_error


def build_info() -> dict[str, Any]:
    """Return how the extension was built: compiler, torch, CUDA version and architectures.

    Raises:
        BackendError: If it is not there.
    """
    if _C is None:
        raise BackendError(_missing())
    info: dict[str, Any] = _C.build_info()
    return info


def cpu_capabilities() -> list[str]:
    """Return the instruction sets that the CPU kernels can use on this processor, widest first; empty if not built."""
    capabilities: list[str] = [] if _C is None else _C.cpu_capabilities()
    return capabilities


def cpu_capability() -> str:
    """Return the instruction set that the CPU kernels run on, which ``DETKD_CPU`` can hold down; empty if not built.

    Raises:
        RuntimeError: If ``DETKD_CPU`` names none of this processor.
    """
    capability: str = "" if _C is None else _C.cpu_capability()
    return capability


def note_kernels(op: str) -> None:
    """Look up the kernels of an op that has just been defined."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    _devices[op] = frozenset(key.lower() for key in ("CPU", "CUDA") if has(f"detkd::{op}", key))


def use_fused(op: str, backend: Backend, student: Tensor, teacher: Tensor) -> bool:
    """Say whether `op` shall run its compiled kernel on these tensors.

    Raises:
        ArgumentError: If the backend has another name.
        BackendError: If ``fused`` was asked for and cannot run.
    """
    if backend == "reference":
        return False
    if backend not in {"auto", "fused"}:
        raise ArgumentError(f"Expected argument `backend` to be 'auto', 'fused' or 'reference', but got {backend!r}.")
    reason = _obstacle(op, student, teacher)
    if reason is None:
        return True
    if backend == "fused":
        raise BackendError(f"Expected to run `{op}` fused, but {reason}")
    if _C is None and not torch.compiler.is_compiling():
        _warn_once()
    return False


def _obstacle(op: str, student: Tensor, teacher: Tensor) -> str | None:
    if _C is None:
        return _missing()
    if student.dtype not in FUSED_DTYPES or teacher.dtype != student.dtype:
        return f"it takes one of {FUSED_DTYPES} for both, and got {student.dtype} and {teacher.dtype}."
    device = student.device.type
    if device not in _devices[op]:
        return f"this build has no kernel of it for {device}."
    return None


def _missing() -> str:
    return f"the extension detkd._C is not there ({_load_error}). {HOW_TO_BUILD}"


@cache
def _warn_once() -> None:
    warnings.warn(
        f"detkd runs its losses in plain PyTorch: {_missing()} Results are the same, steps are slower.",
        RuntimeWarning,
        stacklevel=4,
    )
